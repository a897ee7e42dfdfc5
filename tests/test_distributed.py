"""torchrun: several processes give what one gives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

import polycode_plugins as pc

SITE = "blocks.2.hook_resid_post"
COMMON = [
    "analyze",
    "--limit",
    "30",
    "--batch-size",
    "5",
    "--sites",
    SITE,
    "--quiet",
    "--no-report",
]


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes),
            "--master-addr", "127.0.0.1", "--master-port", str(port),
            "-m", "polycode_plugins", *arguments,
        ],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip


def test_three_processes_equal_one(tmp_path: Path):
    done = torchrun(3, *COMMON, "--out", str(tmp_path / "three"))
    assert done.returncode == 0, done.stderr
    one = pc.analyze(limit=30, batch_size=5, sites=[SITE], out=tmp_path / "one")
    three = pc.Analysis.load(tmp_path / "three")
    assert three.run["rows"]["count"] == 30
    assert three.run["rows"]["digest"] == one.run["rows"]["digest"]
    a, b = (torch.from_numpy(x[SITE, "spectrum"].eigenvalues) for x in (one, three))
    assert one[SITE, "spectrum"].n_samples == three[SITE, "spectrum"].n_samples
    # The forward passes hold other rows together, so float32 rounds differently.
    assert float((a - b).abs().max() / a.max()) < 1e-5


def test_a_mistake_ends_all_processes_with_its_sentence(tmp_path: Path):
    done = torchrun(2, *COMMON, "--text", str(tmp_path / "none.txt"))
    assert done.returncode != 0
    assert "none.txt" in done.stderr
    # torchrun adds a traceback of its own; none is through this package.
    assert "polycode_plugins/" not in done.stderr
