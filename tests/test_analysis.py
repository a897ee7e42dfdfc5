"""Saving, loading, merging and resuming: exact, atomic, and refused with a reason."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import polycode_plugins as pc
from polycode_plugins.files import storage
from polycode_plugins.files.provenance import Rows
from polycode_plugins.runs import passes

# float64, so that a batch of other rows does not round otherwise.
DATA = torch.randn(90, 6, generator=torch.Generator().manual_seed(0)).double()
SPECTRUM = pc.metrics.Spectrum(fit="huber", ranks=(1, 500))


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh()).double()


def analysed(data: torch.Tensor = DATA, model: nn.Module | None = None, **options) -> pc.Analysis:
    return pc.analyze(model or network(), data, SPECTRUM, ["1", "3"], batch_size=8, **options)


def eigenvalues(analysis: pc.Analysis) -> dict[str, torch.Tensor]:
    return {s: torch.from_numpy(analysis[s, "spectrum"].eigenvalues) for s in analysis}


def assert_close(a: pc.Analysis, b: pc.Analysis, tolerance: float) -> None:
    x, y = eigenvalues(a), eigenvalues(b)
    assert x.keys() == y.keys()
    for site in x:
        assert float((x[site] - y[site]).abs().max() / x[site].max()) <= tolerance


def test_a_saved_analysis_loads_as_it_was(tmp_path):
    made = analysed()
    assert made.save(tmp_path / "run") == tmp_path / "run"
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "results.parquet",
        "run.json",
        "state.safetensors",
    ]
    read = pc.Analysis.load(tmp_path / "run")
    assert_close(made, read, 0.0)
    assert read["1", "spectrum"].to_dict() == made["1", "spectrum"].to_dict()
    assert read.to_dataframe().equals(made.to_dataframe())
    assert read.run["rows"] == made.run["rows"]
    assert read.run["rows"]["count"] == 90


@settings(max_examples=12, deadline=None)
@given(count=st.integers(2, 5), order=st.randoms(use_true_random=False))
def test_shards_in_any_order_merge_to_the_whole(count, order):
    whole = analysed()
    parts = [analysed(shard=(i, count)) for i in range(count)]
    order.shuffle(parts)
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.merge(part)
    assert_close(whole, joined, 1e-12)
    assert joined.run["rows"]["count"] == 90
    assert joined.run["rows"]["digest"] == whole.run["rows"]["digest"]


def test_colleagues_can_read_every_file_of_a_run(tmp_path):
    analysed().save(tmp_path / "run")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    assert len(modes) >= 3
    assert len(set(modes.values())) == 1, modes


def test_merging_changes_neither_part():
    a, b = analysed(shard=(0, 2)), analysed(shard=(1, 2))
    before = {k: v.clone() for k, v in a.statistics.state().items()}
    a.merge(b)
    assert all(torch.equal(v, before[k]) for k, v in a.statistics.state().items())


def test_what_does_not_belong_together_is_not_merged():
    part = analysed(shard=(0, 2))
    with pytest.raises(pc.StateError, match="row 0 of the data is in both"):
        part.merge(part)
    with pytest.raises(pc.StateError, match="row 3 of the data is in both"):
        analysed(shard=(0, 3)).merge(analysed(shard=(1, 2)))
    other = analysed(shard=(1, 2), model=network(1))
    with pytest.raises(pc.StateError, match=r"model\.fingerprint is"):
        part.merge(other)
    sites = pc.analyze(network(), DATA, SPECTRUM, ["1"], batch_size=8, shard=(1, 2))
    with pytest.raises(pc.StateError, match="the sites differ in '3'"):
        part.merge(sites)
    metric = pc.metrics.Spectrum(fit="stringer", ranks=(1, 500))
    metrics = pc.analyze(network(), DATA, metric, ["1", "3"], batch_size=8, shard=(1, 2))
    with pytest.raises(pc.StateError, match="metrics is"):
        part.merge(metrics)


@pytest.mark.parametrize("name", ["run.json", "state.safetensors", "results.parquet"])
def test_a_damaged_file_refuses_the_folder(tmp_path, name):
    analysed().save(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", whole[:-9] + b"\xff" + whole[-8:]):
        path.write_bytes(broken)
        with pytest.raises(pc.StateError, match="damaged"):
            pc.Analysis.load(tmp_path)
    path.unlink()
    with pytest.raises(pc.StateError, match=name.replace(".", r"\.")):
        pc.Analysis.load(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    analysed().save(tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | {"format": 99}))
    with pytest.raises(pc.StateError, match="format 99 and this version reads up to"):
        pc.Analysis.load(tmp_path)


def test_files_of_others_are_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(pc.StateError, match=r"holds other files \(thesis\.tex\)"):
        analysed(out=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(pc.StateError, match="is a file"):
        analysed(out=tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "thesis.tex"]


def test_a_finished_run_is_kept_unless_fresh(tmp_path):
    first = analysed(out=tmp_path / "run")
    with pytest.raises(pc.StateError, match="holds a finished run"):
        analysed(out=tmp_path / "run")
    again = analysed(out=tmp_path / "run", fresh=True)
    assert_close(first, again, 0.0)


def test_a_second_process_is_refused(tmp_path):
    script = (
        "import sys, pathlib, polycode_plugins.files.storage as s\n"
        "with s.locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(pc.StateError, match="another process is writing"):
            analysed(out=tmp_path)
        holder.communicate("")
    analysed(out=tmp_path)


def test_sites_without_a_result_are_named():
    layers = [layer for _ in range(7) for layer in (nn.Linear(6, 6), nn.Tanh())]
    spectrum = pc.metrics.Spectrum(ranks=(1, None))
    with pytest.raises(pc.DataError) as caught:
        pc.analyze(nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 6)), DATA.float(), spectrum, "0")
    assert "more at" not in str(caught.value)
    with pytest.raises(pc.DataError, match=r"of site '0': .*more at 1, 2, 3, 4, 5, 8 others\)$"):
        pc.analyze(nn.Sequential(*layers), torch.ones(9, 6), spectrum, "*")


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
            Interrupting.calls += 1
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


KILLED = """
import sys, time
import torch
from torch import nn
import polycode_plugins as pc
from polycode_plugins.runs import passes
passes.CHECKPOINT_SECONDS = 0.0

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(6, 24), nn.Tanh())
    def forward(self, x):
        time.sleep(0.01)
        return self.inner(x)

data = torch.randn(640, 6, generator=torch.Generator().manual_seed(0))
metric = pc.metrics.Spectrum(fit="huber", ranks=(1, 500))
print("go", flush=True)
pc.analyze(Slow(), data, metric, ["inner.1"], batch_size=8, out=sys.argv[1])
"""


def test_kill_9_at_any_moment_resumes_to_the_undisturbed_result(tmp_path):
    def run(folder: Path, seconds: float | None) -> int:
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if seconds is not None:
                time.sleep(seconds)
                os.kill(process.pid, signal.SIGKILL)
            return process.wait()

    assert run(tmp_path / "whole", None) == 0
    moments = torch.rand(3, generator=torch.Generator().manual_seed(7)) * 0.9
    for moment in moments.tolist():
        run(tmp_path / "killed", moment)
        if (tmp_path / "killed" / "results.parquet").exists():
            break  # a fast machine was done before the kill
    status = run(tmp_path / "killed", None)
    assert status in (0, 1)  # 1: it had finished, and a finished run is refused
    a, b = (pc.Analysis.load(tmp_path / name) for name in ("whole", "killed"))
    assert torch.equal(eigenvalues(a)["inner.1"], eigenvalues(b)["inner.1"])
    assert a.run["rows"] == b.run["rows"]


def test_the_record_says_what_made_it():
    run = analysed(command="polycode analyze ...", seed=3).run
    assert run["seed"] == 3
    assert run["command"] == "polycode analyze ..."
    assert run["model"]["adapter"] == "module"
    assert run["metrics"][0]["options"]["fit"] == "huber"
    assert run["libraries"]["torch"] == torch.__version__.partition("+")[0] or "torch" in str(run)
    json.dumps(run)


def test_the_digest_is_of_the_content_and_the_order_not_of_the_batches():
    a = Rows().extended(torch.arange(4), DATA[:4]).extended(torch.arange(4, 9), DATA[4:9])
    b = Rows().extended(torch.arange(9), DATA[:9])
    assert a == b
    assert Rows().extended(torch.arange(9), DATA[:9].flip(0)).digest != b.digest
    changed = DATA[:9].clone()
    changed[3, 3] += 1e-6
    assert Rows().extended(torch.arange(9), changed).digest != b.digest


@settings(max_examples=100, deadline=None)
@given(
    a=st.sets(st.integers(0, 60), min_size=1),
    b=st.sets(st.integers(0, 60), min_size=1),
)
def test_rows_know_exactly_when_they_overlap(a, b):
    def rows(indices: set[int]) -> Rows:
        ordered = torch.tensor(sorted(indices))
        return Rows().extended(ordered, ordered[:, None].float())

    x, y = rows(a), rows(b)
    assert (x.count, y.count) == (len(a), len(b))
    if a & b:
        with pytest.raises(pc.StateError, match="is in both"):
            x.joined(y)
    else:
        joined = x.joined(y)
        assert joined.count == len(a | b)
        assert joined.digest == rows(a | b).digest


def test_looking_things_up():
    analysis = analysed()
    assert list(analysis) == ["1", "3"]
    assert len(analysis) == 2
    assert "2 sites" in repr(analysis)
    assert analysis["1"]["spectrum"] is analysis["1", "spectrum"]
    with pytest.raises(pc.SiteError, match="no site '11'"):
        analysis["11"]
    with pytest.raises(pc.SiteError, match="no metric 'mine'"):
        analysis["1", "mine"]
    frame = analysis.to_dataframe()
    assert frame["site"].tolist() == ["1", "3"]
    assert (frame["spectrum.slope"] == -frame["spectrum.exponent"]).all()


def test_plots_of_every_site():
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = analysed().plot()
    assert [a.get_title() for a in figure.axes if a.get_visible()] == ["1", "3"]
    plt.close(figure)


def test_measure_chooses_sites_by_name_and_glob():
    layers = {f"blocks.{i}.hook_resid_post": torch.randn(200, 30) for i in range(3)}
    weights = {"blocks.0.attn.hook_pattern": torch.rand(2, 4, 8, 8)}
    chosen = pc.measure(layers | weights, ["spectrum"], "**.hook_resid_post")
    assert list(chosen) == list(layers)
    assert list(pc.measure(layers, ["spectrum"], ["blocks.2.*", "blocks.0.*"])) == [
        "blocks.0.hook_resid_post",
        "blocks.2.hook_resid_post",
    ]
    with pytest.raises(pc.DataError, match=r"attention weights.*sites="):
        pc.measure(layers | weights, ["spectrum"])
    with pytest.raises(pc.SiteError, match=r"'\*\.hook_resid_pre'"):
        pc.measure(layers, ["spectrum"], "*.hook_resid_pre")


def test_a_kill_between_two_files_leaves_one_whole_run(tmp_path: Path):
    pc.measure({"a": torch.randn(200, 30)}, ["spectrum"]).save(tmp_path)
    state, waiting = tmp_path / storage.STATE, tmp_path / f".{storage.STATE}.next"
    content = state.read_bytes()
    assert not waiting.exists()
    waiting.write_bytes(b"of a later run that run.json does not know")
    assert list(pc.Analysis.load(tmp_path)) == ["a"]
    waiting.write_bytes(content)
    state.write_bytes(b"of an earlier run")
    assert list(pc.Analysis.load(tmp_path)) == ["a"]
    waiting.unlink()
    with pytest.raises(pc.StateError, match="checksum"):
        pc.Analysis.load(tmp_path)
