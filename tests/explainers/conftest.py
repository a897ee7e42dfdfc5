"""A server for each test module, and a fast back-off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_server import KEY, Server

from polycode_plugins.explainers.language_model import OpenAIExplainer
from polycode_plugins.explainers.language_model.transport import session


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(session, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        yield running


@pytest.fixture
def explainer(server: Server, tmp_path: Path) -> Iterator[object]:
    """Makes explainers against the server: `explainer("cut", budget=1)`."""
    made: list[OpenAIExplainer] = []

    def make(fault: str = "plain", *, again: bool = False, **options: object) -> OpenAIExplainer:
        path = tmp_path / f"answers{0 if again else len(made)}.sqlite"
        settings = {"model": "planted", "store": path, "attempts": 3, "timeout": 30, **options}
        one = OpenAIExplainer(base_url=server.url(fault), **settings)  # type: ignore[arg-type]
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()
