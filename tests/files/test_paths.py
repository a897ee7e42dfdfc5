"""A `~` is somebody's home wherever a path is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins.data.text import text_documents
from polycode_plugins.files.paths import given

DATA = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
SPECTRUM = pc.metrics.Spectrum(fit="huber", ranks=(1, None))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Somebody's, and another folder to work in."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def test_only_a_beginning_stands_for_it(home):
    assert given("~/runs") == given(Path("~/runs")) == home / "runs"
    assert given("runs/~") == Path("runs/~")
    assert given("~nobody-of-this-name/runs") == Path("~nobody-of-this-name/runs")


def test_a_run_is_written_read_compared_and_reported_there(home):
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh())
    run = pc.analyze(model, DATA, SPECTRUM, "1", out="~/runs/a")
    assert (home / "runs/a/run.json").is_file()
    assert (home / "runs/a/results.parquet").is_file()
    with pytest.raises(pc.StateError, match="finished"):
        pc.analyze(model, DATA, SPECTRUM, "1", out=Path("~/runs/a"))
    again = pc.Analysis.load("~/runs/a")
    assert again["1", "spectrum"].exponent == run["1", "spectrum"].exponent
    run.save("~/runs/b")
    pc.diff("~/runs/a", "~/runs/b").report("~/diff.html")
    again.report("~/report.html")
    assert (home / "diff.html").is_file()
    assert (home / "report.html").is_file()
    assert not list(Path.cwd().iterdir())


def test_texts_and_models_are_found_there(home):
    (home / "texts.txt").write_text("a text\n", encoding="utf-8")
    assert next(iter(text_documents("~/texts.txt"))).text.strip() == "a text"
    with pytest.raises(pc.ModelError, match=str(home)):
        pc.load("~/no-model", "transformers")
