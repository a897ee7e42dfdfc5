"""torchrun: several processes give what one gives."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import early
import forks
import joining_processes
import pytest
import torch
from torch.distributed import run

import polycode_plugins as pc
from polycode_plugins.commands import main

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


def torchrun(processes: int, *arguments: str) -> forks.Ended:
    """`torchrun`, itself a fork of this process; what it starts are programs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = [
        "--nproc-per-node", str(processes), "--master-addr", "127.0.0.1",
        "--master-port", str(port), "-m", "polycode_plugins", *arguments,
    ]  # fmt: skip

    def work() -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        run.main(given)

    return forks.Program(work).end()


def run_together(processes: int, *arguments: str) -> None:
    for done in forks.together(processes, lambda _: main.main([*COMMON, *arguments])):
        assert done.returncode == 0, done.stderr


def test_several_processes_equal_one(tmp_path: Path):
    one = pc.analyze(limit=30, batch_size=5, sites=[SITE], out=tmp_path / "one")
    run_together(2, "--out", str(tmp_path / "two"))  # with the model that was read for the one
    two = pc.Analysis.load(tmp_path / "two")
    assert two.run["rows"]["count"] == 30
    assert two.run["rows"]["digest"] == one.run["rows"]["digest"]
    a, b = (torch.from_numpy(x[SITE, "spectrum"].eigenvalues) for x in (one, two))
    assert one[SITE, "spectrum"].n_samples == two[SITE, "spectrum"].n_samples
    # The forward passes hold other rows together, so float32 rounds differently.
    assert float((a - b).abs().max() / a.max()) < 1e-5


def test_moments_of_three_processes_are_those_of_one_up_to_rounding(tmp_path: Path):
    one = pc.analyze(limit=30, batch_size=5, sites=[SITE], dtype="float64")
    run_together(3, "--dtype", "float64", "--out", str(tmp_path / "three"))
    three = pc.Analysis.load(tmp_path / "three")
    assert three.run["rows"]["digest"] == one.run["rows"]["digest"]
    a, b = (
        x.statistics.accumulators(SITE, "spectrum")["covariance"].eigenvalues()
        for x in (one, three)
    )
    assert float((a - b).abs().max() / a.max()) < 1e-10


def test_a_mistake_ends_all_processes_with_its_sentence():
    done = torchrun(2, *COMMON, "--metrics", "spectrm")  # before a model is loaded
    assert done.returncode != 0
    assert "'spectrm'" in done.stderr
    assert "did you mean 'spectrum'" in done.stderr
    # torchrun adds a traceback of its own; none is through this package.
    assert "polycode_plugins/" not in done.stderr


@pytest.fixture(scope="module")
def joined() -> list[dict[str, Any]]:
    """What came of each case of `joining_processes` in each of two processes."""
    return [
        json.loads(one.stdout)
        for one in forks.together(2, joining_processes.program, start=early.Program)
    ]


def test_tensors_of_every_type_come_back_as_they_were(joined):
    for found in joined:
        assert found["well"] == found["well again"] == [True, 3, 20]
        assert found["unknown to NCCL"] == []


@pytest.mark.parametrize(
    ("case", "kind", "said"),
    [
        ("first without rows", "StateError", "rank 0 of 2 processes had no row"),
        ("last without rows", "StateError", "rank 1 of 2 processes had no row"),
        ("shared without rows", "StateError", "rank 1 of 2 processes had no row"),
        ("other sites", "StateError", "do not see the same sites"),
        ("a row in both", "StateError", "row 0 of the data is in both parts"),
        ("merge", "DataError", "these shelves are of different width"),
        ("merge, of another type", "StateError", "no shelf at all"),
        ("state of the last", "StateError", "out of memory"),
        ("state of the first", "StateError", "out of memory"),
        ("load", "StateError", "this shelf is full"),
        ("one fails before", "DataError", "a NaN"),
    ],
)
def test_all_processes_raise_the_sentence_of_the_one_that_fails(joined, case, kind, said):
    first, last = (found[case] for found in joined)
    assert first == last
    assert first[0] == kind
    assert said in first[1]


def test_processes_that_agree_go_on(joined):
    assert [found["none fails before"] for found in joined] == [None, None]
