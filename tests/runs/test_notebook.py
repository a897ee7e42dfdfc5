"""What a terminal and a notebook show of an analysis, a probe and a result."""

from __future__ import annotations

import pytest
import torch
from report_samples import planted
from torch import nn

import polycode_plugins as pc

SITES = [f"blocks.{i}.hook_resid_post" for i in range(3)]


@pytest.fixture(scope="module")
def analysis():
    made = {s: planted(1.0 + i, samples=600, width=60, seed=i) for i, s in enumerate(SITES)}
    return pc.measure(made, ["spectrum", "capacity"])


def test_it_says_what_was_found(analysis):
    said = repr(analysis).splitlines()
    assert said[0] == "Analysis(3 sites, metrics: spectrum, capacity)"
    assert all(len(line) <= 88 for line in said[1:])
    assert "participation ratio" in " ".join(repr(analysis).split())
    html = analysis._repr_html_()
    assert html.count("<img") == 1
    assert "data:image/png;base64," in html


def test_foreign_names_are_escaped():
    made = pc.measure({"<b>x</b>": planted(1.0, samples=600, width=60, seed=0)}, ["spectrum"])
    assert "<b>" not in made._repr_html_()
    assert "&lt;b&gt;" in made._repr_html_()


@pytest.mark.parametrize("metric", ["spectrum", "capacity"])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_headline_fits(analysis, metric, width):
    frame = analysis.headline(metric, width=width)
    assert list(frame.index) == SITES
    assert all(len(line) <= width for line in str(frame.to_string()).splitlines())
    assert len(frame.columns) >= (1 if width < 80 else 3)
    if width == 80:  # as `print` has it
        assert all(len(line.rstrip()) <= 80 for line in repr(frame).splitlines())


def test_the_headline_has_the_numbers(analysis):
    frame = analysis.headline("spectrum")
    result = analysis[SITES[0], "spectrum"]
    assert frame["exponent"].iloc[0] == pytest.approx(result.exponent, rel=1e-3)
    low, high = map(float, frame["interval"].iloc[0].split(" to "))
    assert (low, high) == pytest.approx(result.interval, rel=1e-3)
    assert frame["verdict"].iloc[0] == result.verdict
    with pytest.raises(pc.errors.SiteError, match="no metric 'mine'"):
        analysis.headline("mine")


def test_a_result_is_short_and_holds_no_array(analysis):
    result = analysis[SITES[0], "spectrum"]
    assert len(repr(result)) < 600
    assert repr(result).startswith("SpectrumResult\n  exponent ")
    assert "array" not in repr(result)
    assert "data:image/svg" in result._repr_html_()


def test_a_probe_gives_a_table_or_says_how(capsys):
    model = nn.Sequential(nn.Linear(20, 40), nn.Tanh())
    with pc.attach(model, ["0"], ["spectrum"]) as probe:
        model(torch.tensor(planted(1.0, samples=500, width=20, seed=0)).float())
        assert "500 samples at 0" in probe._repr_html_()
        assert list(probe.to_dataframe()["site"]) == ["0"]
        with pytest.raises(AttributeError, match=r"write probe\.compute\(\)\.report"):
            probe.report("x.html")
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = probe.nothing
