"""Thousands of records of others in one comparison, and what is said of those that are not read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from polycode_plugins.commands.main import main
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.explainers import TokenLookupExplainer, compare_records
from polycode_plugins.explainers.comparison.outcome import Comparison
from polycode_plugins.explainers.scoring.judging import SimulatingJudge

WORDS = [f" w{i}" for i in range(60)]


def neuron(layer: int, number: int, noise: float = 0.0, n_random: int = 15) -> dict[str, object]:
    """A neuron that is 5 on one word, and noise everywhere."""
    rng = np.random.default_rng([layer, number])

    def text(fires: bool) -> dict[str, object]:
        at = rng.integers(0, 60, 12)
        if fires:
            at[rng.integers(12)] = number % 60
        values = 5.0 * (at == number % 60) + noise * rng.normal(size=12)
        return {"tokens": [WORDS[i] for i in at], "activations": values.tolist()}

    return {
        "neuron_id": {"layer_index": layer, "neuron_index": number},
        "most_positive_activation_records": [text(True) for _ in range(20)],
        "random_sample": [text(False) for _ in range(n_random)],
    }


def written(folder, kind, numbers, noise=0.0, **more):
    for layer in (2, 10):
        for number in numbers:
            path = folder / kind / str(layer) / f"{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(neuron(layer, number, noise, **more)))
    return folder / kind


def test_kinds_layers_and_scores(tmp_path):
    clear = written(tmp_path, "clear", range(6))
    noisy = written(tmp_path, "noisy", range(6), noise=3.0)
    made = compare_records(
        {"neuron": clear, "projection": noisy}, out=tmp_path / "run", judge=False
    )
    assert made.sites == ["layer 2", "layer 10"]
    assert len(made) == 24
    assert [u.name for u in made][6] == "projection 0"
    assert all(u.score("correlation") > 0.99 for u in made if u.kind == "neuron")
    assert all(u.shape.kurtosis > 3 for u in made if u.kind == "neuron")
    assert made.contrast("neuron", "projection")[-1].difference > 0.2
    assert "warnings" not in made.run
    again = Comparison.load(tmp_path / "run")
    assert [u.score("correlation") for u in again] == [u.score("correlation") for u in made]
    made.report(tmp_path / "report.html")
    keys = [json.loads(line) for line in made.export(tmp_path / "x").read_text().splitlines()]
    assert len({(k["layer"], k["index"]) for k in keys}) == 24
    with pytest.raises(StateError, match="holds a comparison"):
        compare_records(clear, out=tmp_path / "run")
    assert len(compare_records(str(clear / "*" / "[0-2].json"), judge=False, floors=())) == 6


def test_files_that_are_not_read_are_counted_and_two_of_one_unit_refused(tmp_path):
    folder = written(tmp_path, "all", range(3), n_random=10)
    (folder / "2" / "7.json").write_text("{}")
    (folder / "2" / "8.json").write_text("no json")
    made = compare_records(folder, judge=False, floors=())
    assert len(made) == 6
    first, second = made.run["warnings"]
    assert first.startswith("2 of 8 files were not read: ")
    assert "7.json' is no NeuronRecord" in first
    assert second == "6 of 6 units: it has 10 random texts and the protocol takes 15"
    (folder / "copy.json").write_text((folder / "10" / "1.json").read_text())
    with pytest.raises(DataError, match="are both of neuron 1 of 'layer 10'; leave one out"):
        compare_records(folder)
    with pytest.raises(DataError, match="there is no file of records at"):
        compare_records(tmp_path / "none")
    with pytest.raises(DataError, match="none of 1 files can be read; the first: "):
        compare_records(folder / "2" / "8.json")


class JudgeAlone(TokenLookupExplainer):
    """A judge of its own, and no simulator."""

    name = "judge-alone"

    def simulator(self):
        raise AssertionError("nothing is to be simulated")

    def judge(self):
        return SimulatingJudge(TokenLookupExplainer().simulator())


def test_judges_alone_and_several_explanations_are_those_of_compare(tmp_path):
    clear = written(tmp_path, "clear", range(3))
    made = compare_records(clear, explainer=JudgeAlone(), simulate=False, explanations=2)
    assert made.run["simulator"]["simulator"] == "none"
    assert made.run["explanations"] == 2
    assert made.headline_scores[0] == "detection"
    assert all(unit.score("correlation") is None for unit in made)


def test_the_command_line(tmp_path, capsys):
    clear, noisy = written(tmp_path, "a", range(4)), written(tmp_path, "b", range(4), noise=3.0)
    records = ["--records", f"neuron={clear}", "--records", f"projection={noisy}"]
    assert main(["compare", *records, "--no-judge", "--quiet", "--out", str(tmp_path / "run")]) == 0
    assert ": neuron less projection\n" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").is_file()
    assert main(["explain", "--records", str(clear / "2"), "--no-judge", "--quiet"]) == 0
    assert "layer 2  neuron 3" in capsys.readouterr().out
    assert main(["compare", *records, "--sites", "blocks.*"]) == 2
    assert "leave --sites out" in capsys.readouterr().err
