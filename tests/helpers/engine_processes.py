"""A program for the tests: an engine whose workers are processes of their own.

    python engine_processes.py FOLDER WORKERS OUT

Gathers statistics of prompts and of what is generated from them, and writes what came of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(folder: str, workers: int, out: Path) -> None:
    import torch
    from vllm import LLM, SamplingParams

    import polycode_plugins as pc
    from polycode_plugins.adapters.vllm import EXTENSION
    from polycode_plugins.errors import PolycodeError

    llm = LLM(
        folder,
        dtype="float32",
        enforce_eager=True,
        enable_prefix_caching=False,
        worker_extension_cls=EXTENSION,
        tensor_parallel_size=workers,
        max_num_batched_tokens=48,
        max_num_seqs=6,
        disable_log_stats=True,
    )
    prompts = [[(7 * i + 3 * j) % 3000 + 10 for j in range(12 + 5 * i)] for i in range(9)]
    params = SamplingParams(max_tokens=10, temperature=0.0, ignore_eos=True)
    sites = ["blocks.*.hook_resid_post", "model.layers.1.mlp"]
    spectrum = pc.metrics.Spectrum(fit="huber", ranks=(1, None))
    with pc.attach(llm, sites, [spectrum]) as probe:
        outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
    analysis = probe.compute()
    analysis.save(out / "attached")
    adapter = pc.load(llm)
    read = [list(output.outputs[0].token_ids)[:-1] for output in outputs]
    read = [list(output.outputs[0].token_ids)[:-1] for output in outputs]
    said = {
        "texts": [p + more for p, more in zip(prompts, read, strict=True)],
        "special": adapter.tokenizer.all_special_ids,
        "sites": [site.name for site in adapter.sites()],
        "engine": analysis.run["engine"],
        "model": adapter.describe(),
    }
    try:
        next(iter(adapter.stream(torch.tensor([[1, 2, 3]]))))
    except PolycodeError as error:
        said["stream"] = str(error)
    (out / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
