"""Saved runs that tests damage, and what must not get into their reports."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hostile_values import SCRIPT


class Tags(HTMLParser):
    """Counts the elements of a page, and keeps what would run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.running: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attributes:
            if name.startswith("on") or str(value).lower().startswith("javascript:"):
                self.running.append(f"{tag} {name}={value}")


def assert_escaped(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Tags()
    page.feed(text)
    assert not page.running
    assert SCRIPT not in text
    assert not re.search("[\x00\x1b\u202e]", text)


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved analysis of three metrics over two sites."""
    import torch

    import polycode_plugins as pc

    generator = torch.Generator().manual_seed(0)
    data = {name: torch.randn(90, 12, generator=generator) for name in ("first", "second")}
    metrics = [
        pc.metrics.Spectrum(fit="huber", ranks=(1, 12)),
        pc.metrics.Capacity(fit="huber", ranks=(1, 12)),
        pc.metrics.Action(path="rows", projections=5),
    ]
    return pc.measure(data, metrics).save(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def saved_comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved comparison of planted units."""
    from polycode_plugins.explainers import (
        ComparedUnit,
        Comparison,
        TokenLookupExplainer,
        evaluate,
    )
    from polycode_plugins.explainers.records.unit_records import Shape
    from polycode_plugins.testing.explainers import planted

    made = evaluate(planted()[:2], TokenLookupExplainer(), floors=("empty",))
    shape = Shape(3.0, 0.5, 0.1, 1.0, 400)
    units = tuple(ComparedUnit(0, "trained", one, shape) for one in made)
    run = {
        "calibration": "none",
        "explainer": TokenLookupExplainer().describe(),
        "model": {"name": "planted"},
        "protocol": {"name": "planted"},
        "seed": 0,
        "signs": "fixed",
        "simulator": TokenLookupExplainer().simulator().describe(),
    }
    return Comparison(units, run).save(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run in an empty folder, which has to stay empty: nothing is written where nobody asked."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == []


def copied(folder: Path, to: Path) -> Path:
    """The files of `folder` in `to`, which holds nothing else afterwards."""
    to.mkdir(exist_ok=True)
    for old in to.iterdir():
        old.unlink()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def resealed(folder: Path, name: str, record: str) -> None:
    """Make the record vouch for the file as it is now."""
    content = json.loads((folder / record).read_text())
    content["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / record).write_text(json.dumps(content))
