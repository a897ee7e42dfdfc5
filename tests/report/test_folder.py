"""One page for the analysis and the comparison that one folder holds."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from explanation_samples import sample_comparison
from report_reading import faults, read

import polycode_plugins as pc
from polycode_plugins.commands.main import main
from polycode_plugins.report.folder import write_folder


@pytest.fixture(scope="module")
def analysis() -> pc.Analysis:
    sites = [f"blocks.{i}.hook_resid_post" for i in (1, 4)]
    return pc.analyze(metrics=["spectrum"], sites=sites, limit=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, analysis: pc.Analysis) -> Path:
    folder = tmp_path_factory.mktemp("both")
    sample_comparison().save(folder)  # either may come first
    analysis.save(folder)
    return folder


def test_both_are_on_one_page_without_two_of_one_name(folder, tmp_path):
    path, left_out = write_folder(folder, tmp_path / "r.html")
    page = path.read_text(encoding="utf-8")
    assert left_out == ""
    assert faults(page) == []
    reading = read(page)
    sections = [e.attributes["id"] for e in reading.all("section")]
    assert sections == [
        *(
            "found",
            "measured",
            "metric-0",
            "compared",
            "picture",
            "units",
            "record",
            "compared-record",
        ),
    ]
    ids = [e.attributes["id"] for e in reading.elements if "id" in e.attributes]
    assert len(set(ids)) == len(ids)
    # The layers' exponents are those of the residual stream, known by the number of the block.
    assert "spectrum.exponent" in reading.one("table", id="relation").text


def test_the_command_line_writes_the_same_whatever_was_last(folder, tmp_path, capsys):
    path, _ = write_folder(folder, tmp_path / "r.html")
    assert main(["report", str(folder), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("given", ["analysis", "comparison", "neither"])
def test_another_models_results_are_left_out_and_that_is_said(analysis, tmp_path, given):
    comparison = sample_comparison()
    model = {**comparison.run["model"], "fingerprint": "2:another"}
    other = dataclasses.replace(comparison, run={**comparison.run, "model": model})
    other.save(tmp_path)
    analysis.save(tmp_path)
    held = {"analysis": {"analysis": analysis}, "comparison": {"comparison": other}}
    path, left_out = write_folder(tmp_path, tmp_path / "r.html", **held.get(given, {}))
    title = read(path.read_text(encoding="utf-8")).one("h1").text
    kept = "Explanations of" if given == "comparison" else "Analysis of"
    assert title.startswith(kept)
    assert "of another model" in left_out


def test_what_is_damaged_beside_keeps_no_report_from_being_written(analysis, tmp_path):
    comparison = sample_comparison()
    comparison.save(tmp_path)
    analysis.save(tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"damaged")
    path, left_out = write_folder(tmp_path, tmp_path / "r.html", comparison=comparison)
    assert "Explanations of" in read(path.read_text(encoding="utf-8")).one("h1").text
    assert "the analysis in the same folder is left out" in left_out
    with pytest.raises(pc.StateError, match=r"state\.safetensors"):
        write_folder(tmp_path, tmp_path / "r.html")


def test_a_folder_with_neither_says_so(tmp_path):
    with pytest.raises(pc.StateError, match="no run in"):
        write_folder(tmp_path, tmp_path / "r.html")


def test_no_style_of_one_part_repaints_another(folder, tmp_path):
    path, _ = write_folder(folder, tmp_path / "r.html")
    page = path.read_text(encoding="utf-8")
    painted = re.findall(r"(\.[a-z][\w-]*) \{ background(?:-color)?:", page)
    assert len(painted) == len(set(painted)), painted
    assert ".shade-15" in painted
    used = set(re.findall(r'class="[^"]*?heatcell (\S+?)[ "]', page))
    assert used
    assert all(name == "unknown" or f".{name}" in painted for name in used)
