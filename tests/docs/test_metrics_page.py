"""The code on the page on reading the metrics runs as it stands, and its numbers are true."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from page_python import run, texts
from places import ROOT

import polycode_plugins as pc


def test_the_page_on_the_metrics_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    names = run("docs/metrics.md", {"texts": texts()[:24]})
    said = capsys.readouterr().out
    assert names["result"].verdict in said
    assert "27735.3" in said
    assert "2347" in said
    assert "1.3812" in said
    assert names["alike"].cka.shape == (2, 2)
    assert names["alike"].same()["0"][0] < 0.9
    assert said.rstrip().endswith("1.0") or "0.99999" in said.splitlines()[-1]
    assert names["found"].nats == pytest.approx(0.413, abs=0.05)


def test_its_numbers_are_those_of_the_package():
    page = (ROOT / "docs/metrics.md").read_text("utf-8")
    loss = pc.theory.power_law_entropy(1000, 32, 0.0) - pc.theory.power_law_entropy(1000, 32, 1.0)
    assert f"{loss:,.0f} bits at width 1,000" in page
    bias = (ROOT / "docs/accuracy/exponent.md").read_text("utf-8")
    measured = re.search(r"\| 2000 \| 1\.0 \| (.*) \|", bias.split("Bias of the published")[1])
    assert measured is not None
    numbers = [float(cell) for cell in measured.group(1).split("|")]
    shown = [
        float(cell.replace("−", "-"))
        for cell in re.findall(r"^\| `\"[a-z-]+\"`.*\| (\S+) \|$", page, re.MULTILINE)
    ]
    # The page's order: debiased, Huber 11-500, Huber over all ranks, Stringer, alpha-ReQ.
    assert np.allclose(shown, [numbers[i] for i in (4, 1, 0, 2, 3)])


def test_every_field_it_names_is_there():
    page = (ROOT / "docs/metrics.md").read_text("utf-8")
    fields = {
        "Spectrum": pc.metrics.SpectrumResult,
        "Action": pc.metrics.ActionResult,
        "Capacity": pc.metrics.CapacityResult,
        "Mutual": pc.metrics.MINEResult,
    }
    for heading, kind in fields.items():
        section = re.split(r"\n## ", page.split(f"\n## {heading}", 1)[1])[0]
        rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", section, re.MULTILINE)
        known = {*kind.__dataclass_fields__, *dir(kind)}
        for name in re.findall(r"`([a-z_]+)`", " ".join(rows)):
            assert name in known, name
