"""A comparison is saved and read back whole, or refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hostile_files import assert_escaped, copied
from hostile_values import answer, broken, drawn, fewer
from hypothesis import given
from hypothesis import strategies as st
from planted import planted_comparison, toy

import polycode_plugins as pc
from polycode_plugins.errors import StateError
from polycode_plugins.explainers import Comparison, compare_records
from polycode_plugins.explainers.comparison import files
from polycode_plugins.files import storage


@pytest.mark.parametrize("options", [{}, {"calibrate": "percentile"}])
def test_a_comparison_is_saved_and_read_back_whole(tmp_path, options):
    comparison = planted_comparison(**options, out=tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "comparison.json",
        "units.parquet",
        "records.safetensors",
    }
    read = pc.Comparison.load(tmp_path / "run")
    pd.testing.assert_frame_equal(read.to_dataframe(), comparison.to_dataframe())
    assert read.contrasts == comparison.contrasts
    assert read.run == json.loads(json.dumps(comparison.run))
    for a, b in zip(read, comparison, strict=True):
        left, right = a.evaluation, b.evaluation
        assert left.explanation == right.explanation
        for split in ("explain", "calibration", "score"):
            pairs = getattr(left.records, split).all(), getattr(right.records, split).all()
            for x, y in zip(*pairs, strict=True):
                assert (x.tokens, x.document, x.row, x.unit) == (
                    y.tokens,
                    y.document,
                    y.row,
                    y.unit,
                )
                assert np.array_equal(x.activations, y.activations)
        for x, y in zip(left.simulations, right.simulations, strict=True):
            assert np.array_equal(x.expected, y.expected)
        x = right.simulations[0].expected
        assert np.array_equal(left.calibration(x), right.calibration(x))
    key = ("read", "projection", "trained")
    assert torch.equal(read.directions[key].directions, comparison.directions[key].directions)


def test_finished_damaged_and_foreign_folders_are_refused(tmp_path):
    folder = tmp_path / "run"
    toy().save(folder)
    with pytest.raises(StateError, match="holds a comparison"):
        planted_comparison(out=folder)
    planted_comparison(out=folder, fresh=True)
    with open(folder / "records.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(StateError, match="checksum"):
        pc.Comparison.load(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(StateError, match=r"other files \(thesis.tex\)"):
        toy().save(other)
    with pytest.raises(StateError, match=r"comparison.json is missing"):
        pc.Comparison.load(tmp_path / "nowhere")


@pytest.mark.parametrize("told", [{"spent": {"run": {}}}, {"spent": "much"}, {"warnings": [1]}])
def test_a_record_of_what_was_spent_or_warned_of_that_is_damaged_is_refused(tmp_path, told):
    path = toy().save(tmp_path) / "comparison.json"
    content = json.loads(path.read_text())
    content["run"] |= told
    path.write_text(json.dumps(content))
    with pytest.raises(StateError, match="is damaged"):
        pc.Comparison.load(tmp_path)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_kill_while_it_is_replaced_leaves_the_earlier_or_the_later_one(
    tmp_path, monkeypatch, where
):
    earlier, later = toy(), planted_comparison(seed=1)
    earlier.save(tmp_path)
    write = storage.write_text

    class Killed(BaseException):
        pass

    def killed(path, text):
        if where == "after":
            write(path, text)
        raise Killed

    monkeypatch.setattr(storage, "write_text", killed)
    with pytest.raises(Killed):
        later.save(tmp_path)
    monkeypatch.undo()
    found = pc.explainers.Comparison.load(tmp_path)
    expected = earlier if where == "before" else later
    assert found.run["seed"] == expected.run["seed"]
    pd.testing.assert_frame_equal(found.to_dataframe(), expected.to_dataframe())
    later.save(tmp_path)  # and it can be written again
    assert pc.explainers.Comparison.load(tmp_path).run["seed"] == 1


@drawn
@given(st.data())
@pytest.mark.usefixtures("elsewhere")
def test_the_record_of_a_comparison(saved_comparison, tmp_path_factory, data):
    folder = copied(saved_comparison, tmp_path_factory.getbasetemp() / "comparison")
    tree = data.draw(broken(json.loads((saved_comparison / "comparison.json").read_text())))
    (folder / "comparison.json").write_text(json.dumps(tree))
    found = answer(lambda: Comparison.load(folder))
    if found is not None:
        found.to_dataframe()


@fewer
@given(st.data())
@pytest.mark.usefixtures("elsewhere")
def test_a_report_from_a_comparison_that_loads_is_escaped(saved_comparison, tmp_path_factory, data):
    folder = copied(saved_comparison, tmp_path_factory.getbasetemp() / "compared")
    record = json.loads((saved_comparison / "comparison.json").read_text())
    record |= data.draw(broken({k: record[k] for k in ("run", "units", "directions")}))
    (folder / "comparison.json").write_text(json.dumps(record))
    found = answer(lambda: Comparison.load(folder))
    if found is not None:
        assert_escaped(found.report(folder / "report.html"))


def test_a_folder_into_which_another_run_writes_is_refused_before_a_model_is_loaded(tmp_path):
    records = tmp_path / "records" / "2"
    records.mkdir(parents=True)
    (records / "3.json").write_text("{}")
    with files.locked(tmp_path / "run"):
        for fresh in (False, True):
            with pytest.raises(StateError, match="another process is writing"):
                pc.compare("nowhere", out=tmp_path / "run", fresh=fresh)
            with pytest.raises(StateError, match="another process is writing"):
                compare_records(records.parent, out=tmp_path / "run", fresh=fresh)


def test_a_folder_with_a_comparison_is_finished_and_an_empty_one_is_not(tmp_path):
    files.refuse_finished(tmp_path / "new")
    (tmp_path / "new" / "comparison.json").write_text("{}")
    with pytest.raises(StateError, match=r"holds a comparison.*its report was not written"):
        files.refuse_finished(tmp_path / "new")
    (tmp_path / "new" / "report.html").write_text("")
    with pytest.raises(StateError, match=r"or give another folder$"):
        files.refuse_finished(tmp_path / "new")
