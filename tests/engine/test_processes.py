"""Workers in processes of their own, two of them together, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import polycode_plugins as pc

pytestmark = [pytest.mark.vllm]

SITES = ["model.layers.0", "model.layers.1", "model.layers.2", "model.layers.1.mlp"]
PROGRAM = Path(__file__).resolve().parents[1] / "helpers" / "engine_processes.py"


def started(*arguments: str, **variables: str) -> str:
    environment = {**os.environ, **variables}
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


def test_two_tensor_parallel_workers_count_the_stream_once(folders, tmp_path):
    import transformers
    from engine_truth import truth

    if (os.cpu_count() or 1) < 2:
        pytest.skip("two workers of vLLM need a processor each, and this machine has one")
    folder = folders("qwen3")
    started(str(PROGRAM), str(folder), "2", str(tmp_path), VLLM_CPU_OMP_THREADS_BIND="0|1")
    said = json.loads((tmp_path / "said.json").read_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = truth(model, said["texts"], SITES)
    special = torch.tensor(said["special"])
    kept = [~torch.isin(torch.tensor(text), special) for text in said["texts"]]
    found = pc.Analysis.load(tmp_path / "attached")
    names = [*(f"blocks.{i}.hook_resid_post" for i in range(3)), SITES[3]]
    for site, name in zip(SITES, names, strict=True):
        values = torch.cat([row[site][mask] for row, mask in zip(rows, kept, strict=True)]).double()
        covariance = found.statistics.accumulators(name, "spectrum")["covariance"]
        assert covariance.n_samples == len(values)
        wanted = torch.cov(values.T)
        assert float((covariance.covariance() - wanted).abs().max() / wanted.max()) < 2e-5
    assert said["engine"]["texts"] == 9
    assert said["model"]["tensor_parallel"] == 2
    # Of heads and neurons each worker holds a share.
    assert not any("q_proj" in site or "hook_post" in site for site in said["sites"])
    assert "stay in its workers" in said["stream"]


def test_the_command_line_reads_a_folder_through_the_engine(folders, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Return the root of x, a number that is not negative.\n" * 60)
    common = ["--text", str(text), "--context", "24", "--metrics", "spectrum,action", "--json"]
    found = json.loads(
        started(
            "-m", "polycode_plugins", "analyze", "--adapter", "vllm", "--model",
            str(folders("gpt2")), "--sites", "transformer.h.*", "--out", str(tmp_path / "out"),
            "--option", 'engine={"max_num_seqs": 4}', *common,
        ).strip().splitlines()[-1]
    )  # fmt: skip
    plain = json.loads(
        started(
            "-m", "polycode_plugins", "analyze", "--adapter", "transformers", "--model",
            str(folders("gpt2")), "--sites", "transformer.h.*", *common,
        ).strip().splitlines()[-1]
    )  # fmt: skip
    assert [row["site"] for row in found] == [row["site"] for row in plain]
    for mine, theirs in zip(found, plain, strict=True):
        for key in ("spectrum.exponent", "spectrum.participation_ratio", "spectrum.total_variance"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-3)
    assert (tmp_path / "out" / "report.html").is_file() or _without_plotly()


def _without_plotly() -> Any:
    import importlib.util

    return importlib.util.find_spec("plotly") is None
