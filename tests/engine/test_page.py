"""The example of docs/vllm.md, run as it stands around an engine of a random model."""

from __future__ import annotations

import gc
import re

import pytest
from places import ROOT

pytestmark = [pytest.mark.vllm]

SETTINGS = {"max_num_batched_tokens": 48, "max_num_seqs": 6}
PROMPTS = [list(range(3, 3 + length)) for length in (9, 14, 21)]


def test_the_example_runs_as_it_stands(folders, monkeypatch):
    folder = folders("gpt2")  # skips where there is no vLLM
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    page = (ROOT / "docs" / "vllm.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    # As small as a test can do with; what the page names stays as it is.
    monkeypatch.setattr("vllm.LLM", lambda *given, **named: LLM(*given, **SETTINGS, **named))
    names = {"prompts": [{"prompt_token_ids": ids} for ids in PROMPTS]}
    try:
        exec(example.replace('"FOLDER"', repr(str(folder))), names)
        analysis = names["analysis"]
        counts = {analysis[site, "spectrum"].n_samples for site in analysis}
        (count,) = counts
        # Every token of the prompts but special ones, and at least some that were generated.
        assert count > sum(map(len, PROMPTS)) - 3
        assert all(analysis[site, "action"].n_paths == len(PROMPTS) for site in analysis)
    finally:
        names.clear()
        gc.collect()
        cleanup_dist_env_and_memory()
