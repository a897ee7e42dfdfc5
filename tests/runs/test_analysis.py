"""Saving, loading, merging and resuming: exact, atomic, and refused with a reason."""

from __future__ import annotations

import json
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from analysed_network import DATA, SPECTRUM, analysed, assert_close, network
from hostile_files import assert_escaped, copied, resealed
from hostile_values import answer, broken, drawn, fewer
from hypothesis import given, settings
from hypothesis import strategies as st
from merged_parts import part, parts, same, whole
from torch import nn

import polycode_plugins as pc
from polycode_plugins.activations import Activations, Site
from polycode_plugins.files import storage
from polycode_plugins.metrics import processes
from polycode_plugins.metrics.spectrum.law import power_law
from polycode_plugins.runs import memory
from polycode_plugins.runs.analysis import finish
from polycode_plugins.runs.gathering import Statistics


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


@cache
def shard(index, count):
    """One part, for all orders that are drawn; what is merged stays as it was."""
    return analysed(shard=(index, count))


@settings(max_examples=8, deadline=None)
@given(count=st.integers(2, 5), order=st.randoms(use_true_random=False))
def test_shards_in_any_order_merge_to_the_whole(count, order):
    whole = shard(0, 1)
    pieces = [shard(i, count) for i in range(count)]
    order.shuffle(pieces)
    joined = pieces[0]
    for piece in pieces[1:]:
        joined = joined.merge(piece)
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
    for content in (whole[: len(whole) // 2], b"", whole[:-9] + b"\xff" + whole[-8:]):
        path.write_bytes(content)
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


def test_sites_without_a_result_are_named():
    layers = [layer for _ in range(7) for layer in (nn.Linear(6, 6), nn.Tanh())]
    spectrum = pc.metrics.Spectrum(ranks=(1, None))
    with pytest.raises(pc.DataError) as caught:
        pc.analyze(nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 6)), DATA.float(), spectrum, "0")
    assert "more at" not in str(caught.value)
    with pytest.raises(pc.DataError, match=r"of site '0': .*more at 1, 2, 3, 4, 5, 8 others\)$"):
        pc.analyze(nn.Sequential(*layers), torch.ones(9, 6), spectrum, "*")


def test_the_record_says_what_made_it():
    run = analysed(command="polycode analyze ...", seed=3).run
    assert run["seed"] == 3
    assert run["command"] == "polycode analyze ..."
    assert run["model"]["adapter"] == "module"
    assert run["metrics"][0]["options"]["fit"] == "huber"
    assert run["libraries"]["torch"] == torch.__version__.partition("+")[0] or "torch" in str(run)
    json.dumps(run)


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


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_every_grouping_of_the_parts_is_the_whole(data):
    held = list(parts())
    while len(held) > 1:
        a, b = data.draw(st.permutations(range(len(held))))[:2]
        joined = held[a].merge(held[b])
        held = [p for i, p in enumerate(held) if i not in (a, b)] + [joined]
    same(held[0], whole())


def test_a_part_that_is_in_a_joined_one_already_is_refused():
    six = parts()
    joined = six[2].merge(six[5])
    with pytest.raises(pc.StateError, match="row 5 of the data is in both parts"):
        joined.merge(six[5])
    same_rows = part(1, 3)  # the rows 1, 4, 7 ..: those of the parts 1 and 4 of six
    with pytest.raises(pc.StateError, match="is in both parts"):
        six[4].merge(same_rows)


def test_what_was_attached_or_measured_is_not_merged():
    values = torch.randn(30, 8, 6, generator=torch.Generator().manual_seed(0))
    metric = pc.metrics.Spectrum(fit="huber", ranks=(1, None))
    halves = [pc.measure({"a": half}, metric) for half in values.split(15)]
    with pytest.raises(pc.StateError, match=r"was measured has rows without numbers.*TorchMetric"):
        halves[0].merge(halves[1])


@drawn
@given(st.data())
@pytest.mark.usefixtures("elsewhere")
def test_the_record_of_a_run(saved_run, tmp_path_factory, data):
    folder = copied(saved_run, tmp_path_factory.getbasetemp() / "record")
    tree = data.draw(broken(json.loads((saved_run / "run.json").read_text())))
    (folder / "run.json").write_text(json.dumps(tree))
    before = sorted(folder.iterdir())
    found = answer(lambda: pc.Analysis.load(folder))
    assert sorted(folder.iterdir()) == before
    if found is not None:
        assert list(found) == ["first", "second"]
        found.to_dataframe()


@fewer
@given(st.data())
@pytest.mark.usefixtures("elsewhere")
def test_a_report_from_a_record_that_loads_is_escaped(saved_run, tmp_path_factory, data):
    folder = copied(saved_run, tmp_path_factory.getbasetemp() / "reported")
    record = json.loads((saved_run / "run.json").read_text())
    about = {k: record[k] for k in record if k not in ("files", "format", "complete", "metrics")}
    (folder / "run.json").write_text(json.dumps(record | data.draw(broken(about))))
    found = answer(lambda: pc.Analysis.load(folder))
    if found is not None:
        assert_escaped(found.report(folder / "report.html"))


@drawn
@given(st.data())
@pytest.mark.usefixtures("elsewhere")
def test_the_results_of_a_run(saved_run, tmp_path_factory, data):
    folder = copied(saved_run, tmp_path_factory.getbasetemp() / "results")
    frame = pd.read_parquet(saved_run / storage.RESULTS)
    row = data.draw(st.integers(0, len(frame) - 1))
    frame.loc[row, "json"] = json.dumps(data.draw(broken(json.loads(frame.loc[row, "json"]))))
    frame.to_parquet(folder / storage.RESULTS, index=False)
    resealed(folder, storage.RESULTS, storage.RUN)
    found = answer(lambda: pc.Analysis.load(folder))
    if found is not None:
        found.to_dataframe()


@pytest.mark.parametrize("patience", [0.0, float("inf")])
def test_sites_side_by_side_give_what_each_gives_alone(patience, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", patience)
    monkeypatch.setattr(memory.Room, "helpers", lambda *_: 2)
    begun = []
    make = processes._Pool._begun
    monkeypatch.setattr(processes._Pool, "_begun", lambda pool: begun.append(pool) or make(pool))
    sites = [Site(f"layer{k}", axes=("batch", "feature")) for k in range(5)]
    metrics = [pc.metrics.Spectrum(), pc.metrics.Capacity()]
    statistics = Statistics(metrics, sites)
    rng = np.random.default_rng(0)
    for k, site in enumerate(sites):
        values = rng.standard_normal((300, 40)) * np.arange(1.0, 41) ** -(0.3 + 0.1 * k)
        statistics.receive(site.name, Activations(torch.from_numpy(values), ("batch", "feature")))
    seen = []

    class Progress:
        def update(self):
            seen.append(threading.get_ident())

    found = finish(statistics, {}, Progress())
    assert len(begun) == (patience == 0)
    power_law._fitted.cache_clear()
    assert list(found.results) == [s.name for s in sites]
    assert seen == [threading.get_ident()] * 10  # told from the caller's thread alone
    for site in sites:
        assert list(found.results[site.name]) == ["spectrum", "capacity"]
        for metric in metrics:
            alone = statistics.compute(site.name, metric)
            assert found[site.name, metric.label].scalars() == alone.scalars()
