"""Warnings are one thing for every result: none, a field, or a property."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

import polycode_plugins as pc
from polycode_plugins.commands.main import main
from polycode_plugins.metrics.site_warnings import site_warnings


@dataclass(frozen=True, eq=False)
class Plain(pc.Result):
    value: float


@dataclass(frozen=True, eq=False)
class Field(pc.Result):
    warnings: tuple[str, ...]  # needs no default, though the base answers for it
    value: float


@dataclass(frozen=True, eq=False)
class Property(pc.Result):
    value: float

    @property
    def warnings(self):
        return (f"the value is “{self.value}” and {self.value:g}",)


def test_a_result_has_none_unless_its_class_says_so():
    plain = Plain(1.0)
    assert plain.warnings == ()
    assert Plain.from_dict(plain.to_dict()).warnings == ()
    with pytest.raises(TypeError):
        Field(value=1.0)
    field = Field(("a",), 1.0)
    assert field.warnings == ("a",)
    assert Field.from_dict(field.to_dict()).warnings == ("a",)
    assert Property(2.0).warnings == ("the value is “2.0” and 2",)


def test_sentences_that_differ_in_numbers_and_quotations_are_one():
    results = {"a": Property(1.5), "b": Plain(1.0), "c": Property(2.0), "d": Field(("x",), 0.0)}
    first, second = site_warnings("m", results)
    assert (first.metric, first.sites, first.differs) == ("m", ("a", "c"), True)
    assert str(first) == "At a, c (with the numbers of a): the value is “1.5” and 1.5"
    assert str(second) == "At d: x"
    everywhere = {str(i): Field(("x",), 0.0) for i in range(9)}
    assert str(site_warnings("m", everywhere)[0]) == "At every site: x"
    del everywhere["8"]
    several = {**everywhere, "8": Plain(0.0)}
    assert str(site_warnings("m", several)[0]) == "At 8 of 9 sites (0, 1, 2, ...): x"
    assert [str(w) for w in site_warnings("m", {"only": Field("text", 0.0)})] == ["At only: text"]


def test_python_files_terminal_and_report_say_the_same(tmp_path, capsys):
    values = np.random.default_rng(0).standard_normal((900, 30))
    values[::300] *= 60
    analysis = pc.measure({"a": values, "b": values[:, ::-1].copy()}, ["spectrum", "action"])
    said = [w for w in analysis.warnings if "one direction holds" in w.text]
    assert [(w.metric, w.sites) for w in said] == [("spectrum", ("a", "b"))]
    result = analysis["a", "spectrum"]
    assert said[0].text in result.warnings
    assert result.to_dict()["warnings"] == list(result.warnings)
    again = pc.Analysis.load(analysis.save(tmp_path / "run"))
    assert again.warnings == analysis.warnings
    page = again.report(tmp_path / "report.html").read_text("utf-8")
    assert "one direction holds" in page
    assert main(["analyze", "--limit", "6", "--sites", "blocks.0.hook_resid_post", "--json"]) == 0
    out, err = capsys.readouterr()
    (record,) = json.loads(out)
    assert record["spectrum.warnings"]
    for text in record["spectrum.warnings"]:
        assert f"spectrum: At blocks.0.hook_resid_post: {text}" in err
