"""`polycode compare`, `explain` and `report` as they are typed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from polycode_plugins.commands.compare import _counted
from polycode_plugins.commands.main import main
from polycode_plugins.explainers.costs import Cost
from polycode_plugins.explainers.scoring.scores import Scores

SITE = ["--sites", "blocks.2.mlp.hook_post", "--limit", "250", "--quiet"]


def test_compare_writes_a_run_a_report_and_an_export(tmp_path, capsys):
    out, lines = tmp_path / "run", tmp_path / "x.jsonl"
    arguments = ["compare", *SITE, "--n-units", "3", "--out", str(out), "--export", str(lines)]
    assert main(arguments) == 0
    printed, said = capsys.readouterr()
    assert "Differences by correlation random: neuron less projection" in printed
    assert "nan" not in printed.lower()
    assert "report.html" in said
    assert (out / "report.html").is_file()
    assert len(lines.read_text().splitlines()) == 6
    assert main(arguments) == 2
    assert "holds a comparison" in capsys.readouterr().err
    assert main(["report", str(out), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == (out / "report.html").read_bytes()


def test_the_floors_that_are_printed_are_of_the_units_with_a_score(monkeypatch, capsys):
    """A unit without a score is in neither mean; beside the differences stands the overlap."""
    from polycode_plugins.commands import compare

    run = compare._run

    def first_failed(*args, **options):
        made = run(*args, **options)
        first, *rest = made.units
        scores = Scores.undefined("silent", first.evaluation.scores.n_records)
        floors = {
            n: dataclasses.replace(f, values={**f.values, "correlation": 99.0})
            for n, f in first.evaluation.floors.items()
        }
        changed = dataclasses.replace(first.evaluation, scores=scores, floors=floors)
        return dataclasses.replace(
            made, units=(dataclasses.replace(first, evaluation=changed), *rest)
        )

    monkeypatch.setattr(compare, "_run", first_failed)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["compare", *SITE, "--n-units", "3"]) == 0
    means, differences = capsys.readouterr().out.strip().split("\n\n")[:2]
    assert all(abs(float(v)) < 2 for line in means.splitlines()[1:3] for v in line.split()[2:])
    assert differences.splitlines()[1].split()[-2:] == ["adjusted", "overlap"]


def test_more_units_than_neurons_are_a_warning(capsys, monkeypatch):
    drawn = ["--units", "projection:rademacher", "--n-units", "2", "--json"]
    assert main(["explain", *SITE, *drawn]) == 0
    assert capsys.readouterr().err == ""
    narrow = ["--sites", "blocks.2.hook_resid_post", "--limit", "80", "--floors", "none", "--quiet"]
    assert main(["compare", *narrow, "--n-units", "100000", "--no-judge", "--dry-run"]) == 0
    printed, said = capsys.readouterr()
    assert (
        "warning: 100,000 units of each kind were asked for, and blocks.2.hook_resid_post" in said
    )
    width = int(said.split(" neurons")[0].split()[-1])
    assert printed.startswith(f"{2 * width} units")


def test_a_dry_run_counts(capsys):
    assert main(["compare", *SITE, "--n-units", "3", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "units": 6,
        "note": "",
        "requests": 0,
        "stored": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "dollars": None,
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["compare", "--units", "neuron,sae"], "no kind of units called 'sae'"),
        (["explain", "--numbers", "1-3"], "is not a list such as"),
        (["explain", "--units", "projection", "--numbers", "1"], "--numbers names neurons"),
        (["compare", "--shard", "0/2"], "--shard does not apply"),
        (["compare", "--explainer", "oracle"], "no explainer is called 'oracle'"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert sentence in said[-1]
    assert all(line.endswith(" ...") for line in said[:-1])  # what is being done
    assert len(said) <= 2


def test_what_a_dry_run_says():
    cost = Cost(1200, 34, 56000, 7000)
    assert _counted(5, cost, 1.2345, as_json=False) == (
        "5 units: at most 1,200 requests, 56,000 tokens sent and 7,000 received; 34 more repeat "
        "these or are answered already; at most $1.23"
    )
    assert "--prices" in _counted(5, cost, None, as_json=False)
    assert _counted(5, Cost(), None, as_json=False).endswith("0 received")


def test_settings_that_an_explainer_does_not_take(tmp_path, capsys):
    assert main(["compare", *SITE, "--budget", "1", "--out", str(tmp_path / "x")]) == 2
    assert "does not take these options ({'budget': 1.0})" in capsys.readouterr().err
