"""What docs/explanations.md shows works, and what it says of the constants is so."""

from __future__ import annotations

import re

import matplotlib
import pytest
from places import ROOT

from polycode_plugins.commands.main import parser_of_all
from polycode_plugins.data import text_documents
from polycode_plugins.explainers import base
from polycode_plugins.explainers.comparison import decisions
from polycode_plugins.explainers.comparison.outcome import Comparison
from polycode_plugins.explainers.comparison.statistics import adjusting, resampling
from polycode_plugins.explainers.language_model.judge import TOGETHER
from polycode_plugins.explainers.records.fits import POOLED_TEXTS
from polycode_plugins.explainers.records.near_copies import SHARED, SHINGLE
from polycode_plugins.explainers.records.one_pass import POOL
from polycode_plugins.explainers.scoring.floors import FLOORS
from polycode_plugins.loading import embedded_model

PAGE = (ROOT / "docs" / "explanations.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def test_the_python_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names = {"texts": [d.text for d in text_documents() if 200 < len(d.text) < 900][:60]}
    for source in blocks("python"):
        source = source.replace('"gpt2"', repr(str(embedded_model())))
        exec(compile(source, "explanations.md", "exec", dont_inherit=True), names)
    made = names["comparison"]
    assert isinstance(made, Comparison)
    assert len(made) == 6 * 2 * 5
    assert "Contrast(site=''" in capsys.readouterr().out
    assert (tmp_path / "comparison.html").is_file()


def commands() -> list[list[str]]:
    found = []
    for block in blocks(""):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            words = line.split("#")[0].replace("'", "").split()
            if words[:1] == ["polycode"] and "..." not in words:
                found.append(words[1:])
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_are_understood(words):
    assert parser_of_all().parse_args(words).run is not None


def test_the_constants_are_those_of_the_code():
    said = " ".join(PAGE.split())
    assert all(f"| `{floor}` |" in said for floor in FLOORS)
    assert f"level {base.FIRES} of 10" in said
    assert (
        f"{resampling.BOOTSTRAPS} (adjusted: {adjusting.BOOTSTRAPS}), "
        f"{resampling.PERMUTATIONS}" in said
    )
    assert f"kept at a layer | {POOL}," in said
    assert f"the tokens of {POOLED_TEXTS} random texts" in said
    assert f"{SHARED:.0%} of the runs of {SHINGLE} tokens" in said
    assert f"at most {decisions.NEGLIGIBLE} from 0" in said
    assert f"{decisions.FAR} or more from chance" in said
    assert f"judged in one request | {TOGETHER} texts" in said
