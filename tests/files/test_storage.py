"""Files, names and settings of others: a right answer or one clear sentence, whatever they hold.

Every test breaks something that was right, in ways that are drawn but always the same. No exception
but a PolycodeError may come out, no code may run, nothing may be written elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hostile_values import ODD, SCRIPT, answer, broken, drawn, fewer
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import polycode_plugins as pc
from polycode_plugins.experiments import reproducing
from polycode_plugins.explainers import ComparedUnit, Comparison, TokenLookupExplainer, evaluate
from polycode_plugins.explainers.records.openai_records import read_neuron_records
from polycode_plugins.explainers.records.unit_records import Shape
from polycode_plugins.files import storage
from polycode_plugins.files.provenance import Rows
from polycode_plugins.testing.explainers import planted


class Tags(HTMLParser):
    """Counts the elements of a page, and keeps what would run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.running: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attributes:
            if name.startswith("on") or str(value).lower().startswith("javascript:"):
                self.running.append(f"{tag} {name}={value}")


def assert_escaped(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Tags()
    page.feed(text)
    assert not page.running
    assert SCRIPT not in text
    assert not re.search("[\x00\x1b\u202e]", text)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved analysis of three metrics over two sites."""
    generator = torch.Generator().manual_seed(0)
    data = {name: torch.randn(90, 12, generator=generator) for name in ("first", "second")}
    metrics = [
        pc.metrics.Spectrum(fit="huber", ranks=(1, 12)),
        pc.metrics.Capacity(fit="huber", ranks=(1, 12)),
        pc.metrics.Action(path="rows", projections=5),
    ]
    return pc.measure(data, metrics).save(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved comparison of planted units."""
    made = evaluate(planted()[:2], TokenLookupExplainer(), floors=("empty",))
    shape = Shape(3.0, 0.5, 0.1, 1.0, 400)
    units = tuple(ComparedUnit(0, "trained", one, shape) for one in made)
    run = {
        "calibration": "none",
        "explainer": TokenLookupExplainer().describe(),
        "model": {"name": "planted"},
        "protocol": {"name": "planted"},
        "seed": 0,
        "signs": "fixed",
        "simulator": TokenLookupExplainer().simulator().describe(),
    }
    return Comparison(units, run).save(tmp_path_factory.mktemp("pair"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run in an empty folder, which has to stay empty: nothing is written where nobody asked."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == []


def copied(folder: Path, to: Path) -> Path:
    """The files of `folder` in `to`, which holds nothing else afterwards."""
    to.mkdir(exist_ok=True)
    for old in to.iterdir():
        old.unlink()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def resealed(folder: Path, name: str, record: str) -> None:
    """Make the record vouch for the file as it is now."""
    content = json.loads((folder / record).read_text())
    content["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / record).write_text(json.dumps(content))


# -- records --------------------------------------------------------------------------------------


@drawn
@given(st.data())
def test_the_record_of_a_run(run, tmp_path_factory, data):
    folder = copied(run, tmp_path_factory.getbasetemp() / "record")
    tree = data.draw(broken(json.loads((run / "run.json").read_text())))
    (folder / "run.json").write_text(json.dumps(tree))
    before = sorted(folder.iterdir())
    found = answer(lambda: pc.Analysis.load(folder))
    assert sorted(folder.iterdir()) == before
    if found is not None:
        assert list(found) == list(pc.Analysis.load(run))
        found.to_dataframe()


@fewer
@given(st.data())
def test_a_report_from_a_record_that_loads_is_escaped(run, tmp_path_factory, data):
    folder = copied(run, tmp_path_factory.getbasetemp() / "reported")
    record = json.loads((run / "run.json").read_text())
    about = {k: record[k] for k in record if k not in ("files", "format", "complete", "metrics")}
    (folder / "run.json").write_text(json.dumps(record | data.draw(broken(about))))
    found = answer(lambda: pc.Analysis.load(folder))
    if found is not None:
        assert_escaped(found.report(folder / "report.html"))


@drawn
@given(st.data())
def test_the_results_of_a_run(run, tmp_path_factory, data):
    folder = copied(run, tmp_path_factory.getbasetemp() / "results")
    frame = pd.read_parquet(run / storage.RESULTS)
    row = data.draw(st.integers(0, len(frame) - 1))
    frame.loc[row, "json"] = json.dumps(data.draw(broken(json.loads(frame.loc[row, "json"]))))
    frame.to_parquet(folder / storage.RESULTS, index=False)
    resealed(folder, storage.RESULTS, storage.RUN)
    found = answer(lambda: pc.Analysis.load(folder))
    if found is not None:
        found.to_dataframe()


@drawn
@given(st.data())
def test_the_record_of_a_comparison(comparison, tmp_path_factory, data):
    folder = copied(comparison, tmp_path_factory.getbasetemp() / "comparison")
    tree = data.draw(broken(json.loads((comparison / "comparison.json").read_text())))
    (folder / "comparison.json").write_text(json.dumps(tree))
    found = answer(lambda: Comparison.load(folder))
    if found is not None:
        found.to_dataframe()


@fewer
@given(st.data())
def test_a_report_from_a_comparison_that_loads_is_escaped(comparison, tmp_path_factory, data):
    folder = copied(comparison, tmp_path_factory.getbasetemp() / "compared")
    record = json.loads((comparison / "comparison.json").read_text())
    record |= data.draw(broken({k: record[k] for k in ("run", "units", "directions")}))
    (folder / "comparison.json").write_text(json.dumps(record))
    found = answer(lambda: Comparison.load(folder))
    if found is not None:
        assert_escaped(found.report(folder / "report.html"))


@drawn
@given(st.data())
def test_the_record_of_an_experiment(tmp_path_factory, data):
    asked = {"experiment": "planted", "scale": "smoke", "seed": 0, "settings": {"size": 3}}
    whole = {**asked, "complete": True, "seconds": 1.5, "tables": ["one", "two"]}
    folder = tmp_path_factory.getbasetemp() / "experiment"
    folder.mkdir(exist_ok=True)
    (folder / reproducing.RECORD).write_text(json.dumps(data.draw(broken(whole))))
    found = answer(lambda: reproducing._record(folder, asked))
    if found is not None:
        assert all(Path(table).name == table for table in found.get("tables", []))
        answer(lambda: reproducing._numbers(folder, found.get("tables", [])))


@settings(drawn, max_examples=150)
@given(st.data())
def test_neuron_records(tmp_path_factory, data):
    def record(i: int) -> dict[str, Any]:
        return {"tokens": [f"a{i}", " b", " c"], "activations": [0.5 * i, -0.1, 1.0]}

    whole = {
        "dataclass_name": "NeuronRecord",
        "neuron_id": {"layer_index": 3, "neuron_index": 7},
        "most_positive_activation_records": [record(i) for i in range(20)],
        "random_sample": [record(100 + i) for i in range(20)],
        "random_sample_by_quantile": [[record(200 + i)] for i in range(20)],
    }
    path = tmp_path_factory.getbasetemp() / "neuron.json"
    path.write_text(json.dumps(whole))
    assert read_neuron_records(path).unit == "neuron 7"
    path.write_text(json.dumps(data.draw(broken(whole))))
    found = answer(lambda: read_neuron_records(path))
    if found is not None:
        assert all(np.isfinite(r.activations).all() for r in found.explain.all())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "3", '"format"', '{"format": Infinity}', '{"format": NaN}',
     '{"format": 1e9}', '{"format": true}', '{"format": -1}', "[" * 100_000, '{"a":' * 100_000,
     "\ud83d", "1" * 5_000],
)  # fmt: skip
def test_what_is_no_record_at_all(text, tmp_path):
    for name, load in (
        ("run.json", lambda: pc.Analysis.load(tmp_path)),
        ("comparison.json", lambda: Comparison.load(tmp_path)),
        ("neuron.json", lambda: read_neuron_records(tmp_path / "neuron.json")),
    ):
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(pc.PolycodeError, match=name.partition(".")[0] + "|" + str(tmp_path)):
            load()


@drawn
@given(st.lists(st.lists(st.one_of(st.integers(-3, 40), st.sampled_from(ODD)), max_size=4)))
def test_rows(ranges):
    value = {"ranges": ranges, "digest": "00"}
    rows = answer(lambda: Rows.from_json(value))
    if rows is None:
        return
    assert all(start >= 0 and step >= 1 and count >= 1 for start, step, count in rows.ranges)
    assert answer(lambda: rows.joined(rows)) is None or not ranges


@pytest.mark.parametrize("bad", [[0, 0, 5], [0, -1, 5], [-1, 1, 5], [0, 1, 0], [0, 1, 1.5]])
def test_rows_that_are_none(bad):
    with pytest.raises(pc.StateError, match=re.escape(str(bad))):
        Rows.from_json({"ranges": [bad], "digest": "00"})


def test_far_away_rows_are_compared_without_counting_to_them():
    a = Rows(((0, 10**9 + 7, 10**15),))
    b = Rows(((1, 10**9 + 9, 10**15),))
    with pytest.raises(pc.StateError, match="is in both"):
        a.joined(b)
    assert a.joined(Rows(((1, 10**9 + 7, 10**15),))).count == 2 * 10**15


# -- state ----------------------------------------------------------------------------------------


@drawn
@given(st.data())
def test_tensors_of_a_state(run, tmp_path_factory, data):
    folder = copied(run, tmp_path_factory.getbasetemp() / "state")
    tensors = load_file(run / storage.STATE)
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(st.sampled_from(sorted(tensors)))
        deed = data.draw(st.sampled_from(["key", "dtype", "shape", "value", "remove", "huge"]))
        value = tensors[key]
        if deed == "key":
            names = ["", "/", "x/y/z", "-1/a/b", "٣/a/b", "99999999999/a", f"{key}/more", SCRIPT]
            tensors[data.draw(st.sampled_from(names))] = tensors.pop(key)
        elif deed == "dtype":
            kinds = [torch.int8, torch.bool, torch.float16, torch.bfloat16, torch.complex64]
            kind = data.draw(st.sampled_from(kinds))
            tensors[key] = (value.real if value.is_complex() else value).to(kind)
        elif deed == "shape":
            shapes = [(), (0,), (-1, 1), (1, -1), (1, 1, -1)]
            shape = data.draw(st.sampled_from(shapes))
            tensors[key] = value.reshape(shape) if -1 in shape else torch.zeros(shape)
        elif deed == "value":
            odd = data.draw(st.sampled_from([float("nan"), float("inf"), -1.0, 1e300]))
            tensors[key] = torch.full_like(value.double(), odd)
        elif deed == "huge":
            tensors[key] = torch.ones(200_000, dtype=value.dtype)
        else:
            del tensors[key]
        if not tensors:
            break
    save_file(tensors, folder / storage.STATE)
    resealed(folder, storage.STATE, storage.RUN)
    found = answer(lambda: pc.Analysis.load(folder))
    if found is not None:
        assert all(found.statistics.n_samples(site) >= 0 for site in found)


@drawn
@given(st.integers(0, 2**16), st.integers(0, 7), st.booleans(), st.booleans())
def test_damaged_files(run, tmp_path_factory, at, bit, cut, seal):
    folder = copied(run, tmp_path_factory.getbasetemp() / "damaged")
    for name in (storage.STATE, storage.RESULTS):
        content = bytearray((run / name).read_bytes())
        content[at % len(content)] ^= 1 << bit
        (folder / name).write_bytes(content[: at % len(content)] if cut else content)
        if seal:
            resealed(folder, name, storage.RUN)
    found = answer(lambda: pc.Analysis.load(folder))
    assert seal or found is None


def test_a_pickle_is_not_opened(run, tmp_path):
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    folder = copied(run, tmp_path / "pickled")
    torch.save(Bomb(), folder / storage.STATE)
    resealed(folder, storage.STATE, storage.RUN)
    with pytest.raises(pc.StateError, match="damaged"):
        pc.Analysis.load(folder)
    np.save(tmp_path / "paths.npz", np.array([Bomb()]), allow_pickle=True)
    with pytest.raises(pc.StateError):
        pc.metrics.Trajectories.load(tmp_path / "paths.npz.npy")
    assert not (tmp_path / "ran").exists()
    source = "\n".join(p.read_text() for p in Path(pc.__file__).parent.rglob("*.py"))
    assert not re.search(r"\bimport pickle|\btorch\.load\(|\beval\(\s*[a-z\"]|\bexec\(", source)
