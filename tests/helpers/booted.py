"""The embedded model, loaded once for all tests that do not test its loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from polycode_plugins.adapters.transformer_lens import adapter
from polycode_plugins.loading import embedded_model

_load = adapter.load_model
_held: dict[tuple[Any, ...], tuple[Any, Any, tuple[int, ...]]] = {}


def _state(model: nn.Module) -> tuple[int, ...]:
    """What changes where weights, modes, hooks or gradients of a model do."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    parameters = [(p._version, p.requires_grad, p.grad is None) for p in (*model.parameters(),)]
    modules = [(m.training, *(len(getattr(m, name)) for name in hooks)) for m in model.modules()]
    return (hash(tuple(parameters)), hash(tuple(modules)))


def _load_once(model: str | Path, *options: Any) -> tuple[Any, dict[str, Any]]:
    """What a test left otherwise than it was is loaded anew for the next that asks."""
    if Path(model) != embedded_model():
        return _load(model, *options)
    if options not in _held or _state(_held[options][0]) != _held[options][2]:
        loaded, recorded = _load(model, *options)
        # Its first pass puts a bridge's hooks there: afterwards it is as each test leaves it.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            loaded(torch.ones(1, 2, dtype=torch.long))
        _held[options] = (loaded, recorded, _state(loaded))
    loaded, recorded, _ = _held[options]
    return loaded, dict(recorded)


@pytest.fixture(autouse=True)
def _booted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "load_model", _load_once)
