"""Fixtures of the TransformerLens tests; nothing of it is imported before a test asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lens_kinds import KINDS


@pytest.fixture
def _booted_once() -> None:
    """Loading is tested here: every test loads what it asks for."""


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random GPT-2 with its tokenizer, in Hugging Face format."""
    from tiny_models import save_model

    return save_model(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(params=KINDS)
def lens(request: pytest.FixtureRequest, gpt2_folder: Path) -> Any:
    """That model as each kind of model the installed TransformerLens has."""
    from tiny_models import lens_copy

    return lens_copy(request.param, gpt2_folder)
