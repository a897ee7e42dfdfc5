"""Models of the nnsight tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from nnsight_models import Twice
from tiny_models import save_model


@pytest.fixture
def plain() -> Twice:
    return Twice().eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")
