"""The code in the README and in the docs runs as it stands, with the embedded model for gpt2."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from page_python import run, texts

import polycode_plugins as pc


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    return tmp_path


def test_the_uses_run_in_order(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pc, "compare", partial(pc.compare, n_units=6))  # of each kind and layer
    names = run("README.md", {})
    printed = capsys.readouterr().out
    assert "blocks.5.hook_resid_post" in printed
    assert "verdict" in printed
    analysis = names["analysis"]
    assert isinstance(analysis, pc.Analysis)
    frame = analysis.to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert frame["norm.rms_norm"].is_monotonic_increasing
    assert "norm" in (elsewhere / "report.html").read_text(encoding="utf-8")
    assert (names["comparison"].contrasts[-1].first, len(names["comparison"].sites)) == (
        "neuron",
        6,
    )
    assert "Neuron or projection?" in (elsewhere / "neurons.html").read_text(encoding="utf-8")


def test_the_ways_from_elsewhere_run():
    names = run("docs/from-hugging-face.md", {})
    assert len(names["analysis"]) == 7
    assert len(names["measured"]) == 7
    mask = names["batch"]["attention_mask"]
    assert set(names["probe"].n_samples.values()) == {int(mask.sum())}
    assert mask.sum() < mask.numel()
    names = run("docs/from-a-training-loop.md", {})
    assert [len(frame) for frame in names["history"]] == [2, 2]
    assert "spectrum.participation_ratio" in names["values"]


def test_the_tour_runs_in_order(elsewhere: Path):
    names = run("docs/index.md", {"texts": texts()[:24]})
    assert (elsewhere / "report.html").is_file()
    assert (elsewhere / "my-run" / "run.json").is_file()
    assert len(names["again"]) == 6
    frame = names["again"].to_dataframe()
    pd.testing.assert_frame_equal(frame, names["analysis"].to_dataframe())
