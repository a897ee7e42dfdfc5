"""`analyze`: folders, resuming, interruptions."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import forks
import pytest
import torch
from analysed_network import DATA, SPECTRUM, analysed, assert_close, eigenvalues, network
from torch import nn

import polycode_plugins as pc
from polycode_plugins.files import storage
from polycode_plugins.runs import passes


def test_a_finished_run_is_kept_unless_fresh(tmp_path):
    first = analysed(out=tmp_path / "run")
    with pytest.raises(pc.StateError, match="holds a finished run"):
        analysed(out=tmp_path / "run")
    again = analysed(out=tmp_path / "run", fresh=True)
    assert_close(first, again, 0.0)


def test_a_second_process_is_refused(tmp_path):
    held, asked = os.pipe()
    done, waited = os.pipe()

    def hold() -> None:
        with storage.locked(tmp_path):
            os.write(asked, b"x")
            os.read(done, 1)

    holder = forks.Program(hold)
    assert os.read(held, 1) == b"x"
    with pytest.raises(pc.StateError, match="another process is writing"):
        analysed(out=tmp_path)
    os.write(waited, b"x")
    assert holder.end().returncode == 0
    analysed(out=tmp_path)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path: Path, table: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "_write_table", full)
    with pytest.raises(pc.StateError, match=r"results\.parquet.*the disk is full"):
        analysed(out=tmp_path / "run")
    left = [p.name for p in (tmp_path / "run").iterdir()] if (tmp_path / "run").exists() else []
    assert "results.parquet" not in left
    assert "run.json" not in left
    assert not any(name.endswith(".tmp") for name in left)


def test_an_unwritable_folder_is_said_before_the_work(tmp_path):
    (tmp_path / "blocked").write_text("")
    with pytest.raises(pc.StateError, match="cannot write to"):
        analysed(out=tmp_path / "blocked" / "run")


def test_an_interrupted_run_resumes_to_the_undisturbed_result(tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "CHECKPOINT_SECONDS", 0.0)
    whole = analysed(out=tmp_path / "whole")

    class Interrupting(nn.Module):
        """Stops the run at its fifth batch, once."""

        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Interrupting.calls += len(x) == 8  # trials of the axes have other sizes
            if Interrupting.calls == 5 + 1:  # the first call traces the sites
                raise KeyboardInterrupt
            return self.inner(x)

    options = {"metrics": SPECTRUM, "sites": ["inner.1", "inner.3"], "batch_size": 8}
    model = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        pc.analyze(model, DATA, out=tmp_path / "run", **options)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["complete"], run["rows"]["count"]) == (False, 32)
    with pytest.raises(pc.StateError, match="was interrupted; repeat its command"):
        pc.Analysis.load(tmp_path / "run")
    with pytest.raises(
        pc.StateError, match=r"not this one \(seed is 1 .* 0 in the other\); repeat"
    ):
        pc.analyze(model, DATA, out=tmp_path / "run", seed=1, **options)
    resumed = pc.analyze(model, DATA, out=tmp_path / "run", **options)
    for ours, theirs in zip(
        eigenvalues(whole).values(), eigenvalues(resumed).values(), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert resumed.run["rows"] == whole.run["rows"]


class Slow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(6, 24), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        return self.inner(x)


def test_kill_9_at_any_moment_resumes_to_the_undisturbed_result(tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "CHECKPOINT_SECONDS", 0.0)
    data = torch.randn(320, 6, generator=torch.Generator().manual_seed(0))
    metric = pc.metrics.Spectrum(fit="huber", ranks=(1, 500))

    def run(folder: Path, seconds: float | None) -> int:
        given = {"batch_size": 8, "out": folder}
        process = forks.Program(
            lambda: list(pc.analyze(Slow(), data, metric, ["inner.1"], **given)) and 0
        )
        if seconds is not None:
            time.sleep(seconds)
            process.kill()
        return process.end().returncode

    assert run(tmp_path / "whole", None) == 0
    moments = torch.rand(3, generator=torch.Generator().manual_seed(7)) * 0.5
    for moment in moments.tolist():
        run(tmp_path / "killed", moment)
        if (tmp_path / "killed" / "results.parquet").exists():
            break  # a fast machine was done before the kill
    status = run(tmp_path / "killed", None)
    assert status in (0, 1)  # 1: it had finished, and a finished run is refused
    a, b = (pc.Analysis.load(tmp_path / name) for name in ("whole", "killed"))
    assert torch.equal(eigenvalues(a)["inner.1"], eigenvalues(b)["inner.1"])
    assert a.run["rows"] == b.run["rows"]
