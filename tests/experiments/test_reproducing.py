"""Verdicts, files, resuming, the page and the command, on an experiment made for the purpose."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
from hostile_values import answer, broken, drawn
from hypothesis import given
from hypothesis import strategies as st
from made_up_experiment import SEEN, experiment, run

from polycode_plugins import experiments
from polycode_plugins.errors import PolycodeError, StateError
from polycode_plugins.experiments import reproducing
from polycode_plugins.experiments.base import Experiment


def test_a_reproduction_is_written_and_read_again(tmp_path):
    SEEN.clear()
    made = experiments.reproduce(experiment(), out=tmp_path)
    assert {p.name for p in made.folder.iterdir()} == {
        "made-up.png", "made-up.pdf", "draws.csv", "verdicts.csv", "experiment.json",
    }  # fmt: skip
    again = experiments.reproduce(experiment(), out=tmp_path)
    assert SEEN == ["a", "b"]
    pd.testing.assert_frame_equal(made.numbers["draws"], again.numbers["draws"], check_exact=True)
    assert pd.read_csv(made.folder / "verdicts.csv")["verdict"].tolist() == ["holds"]
    with pytest.raises(StateError, match="another seed"):
        experiments.reproduce(experiment(), out=tmp_path, seed=1)
    other = experiments.reproduce(experiment(), out=tmp_path, seed=1, fresh=True)
    assert other.numbers["draws"]["x"][0] != made.numbers["draws"]["x"][0]


@pytest.mark.parametrize(
    "name", ["../made-up", "a/b", "/tmp/x", "..", ".hidden", "", "a\0", "x" * 200]
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    made = dataclasses.replace(experiment(), name=name)
    with pytest.raises(PolycodeError, match="which is no name of a file"):
        experiments.reproduce(made, out=tmp_path / "out")
    tables = dataclasses.replace(
        experiment(), run=lambda settings, seed, folder: {name: pd.DataFrame({"x": [1.0]})}
    )
    with pytest.raises(PolycodeError, match=r"a table of made-up is called .*no name of a file"):
        experiments.reproduce(tables, out=tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        experiments.reproduce(experiment(), out=tmp_path / folder, seed=3)
    for name in ("draws.csv", "verdicts.csv", "made-up.png", "made-up.pdf"):
        one, two = (tmp_path / f / "made-up" / name for f in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    whole = experiments.reproduce(experiment(), out=tmp_path / "whole").numbers["draws"]
    folder = tmp_path / "broken" / "made-up"
    (folder / "states").mkdir(parents=True)
    (folder / "states" / "stop").touch()
    with pytest.raises(StateError, match="holds other files"):
        experiments.reproduce(experiment(), out=tmp_path / "broken")
    (folder / "states" / "stop").unlink()
    (folder / "states").rmdir()

    def interrupted(settings, seed, states):
        (states / "stop").touch()
        return run(settings, seed, states)

    SEEN.clear()
    with pytest.raises(KeyboardInterrupt):
        experiments.reproduce(
            Experiment(**{**vars(experiment()), "run": interrupted}), out=tmp_path / "broken"
        )
    (folder / "states" / "stop").unlink()
    joined = experiments.reproduce(experiment(), out=tmp_path / "broken").numbers["draws"]
    assert SEEN == ["a", "b", "b"]
    pd.testing.assert_frame_equal(whole, joined, check_exact=True)
    assert not (folder / "states").exists()


def test_settings_can_be_changed_and_mistakes_are_named(tmp_path):
    made = experiments.reproduce(experiment(), out=tmp_path, changes={"shift": -3})
    assert made.verdicts[0].outcome == "does not hold"
    for changes, said in (({"sise": 3}, "did you mean 'size'"), ({"size": "x"}, "such as 20")):
        with pytest.raises(PolycodeError, match=said):
            experiments.reproduce(experiment(), out=tmp_path / "b", changes=changes)
    with pytest.raises(PolycodeError, match="smoke, laptop, paper"):
        experiments.reproduce(experiment(), out=tmp_path / "b", scale="labtop")
    with pytest.raises(PolycodeError, match="did you mean 'dropout-codes'"):
        experiments.reproduce("dropout-code", out=tmp_path / "b")


@drawn
@given(st.data())
@pytest.mark.usefixtures("elsewhere")
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
