"""Distributions with plugins, as pip would leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import early
import pytest

from polycode_plugins.plugins import trial

Install = Callable[..., None]


@pytest.fixture
def forked_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have plugins be tried in a fork that has torch, in place of a fresh interpreter."""
    early.imports("polycode_plugins.adapters", "polycode_plugins.metrics")
    monkeypatch.setattr(trial, "_served", early.served)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put distributions with entry points on the path, as pip would leave them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def put(
        distribution: str, entries: dict[str, str], modules: dict[str, str] | None = None
    ) -> None:
        for name, source in (modules or {}).items():
            (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        text = "".join(
            f"[polycode_plugins.{kind}]\n" + f"{name} = {target}\n"
            for kind_name, target in entries.items()
            for kind, name in [kind_name.split("/")]
        )
        (info / "entry_points.txt").write_text(text)

    return put
