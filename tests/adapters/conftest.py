"""Fixtures of the TransformerLens tests; nothing of it is imported before a test asks for it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

# What the installed major has: HookedTransformer until 3, TransformerBridge from 3 on.
KINDS = {"2": ("hooked",), "3": ("bridge", "hooked")}.get(
    version("transformer-lens").partition(".")[0], ("bridge",)
)


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random GPT-2 with its tokenizer, in Hugging Face format."""
    from tiny_models import save_model

    return save_model(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(params=KINDS)
def lens(request: pytest.FixtureRequest, gpt2_folder: Path) -> Any:
    """That model as each kind of model the installed TransformerLens has."""
    from tiny_models import lens_model

    return lens_model(request.param, gpt2_folder)
