"""What a hook could not read, and what it counted, is said in the end and not in the pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from polycode_plugins.errors import DataError
from polycode_plugins.metrics import Spectrum, hook

POINT = SimpleNamespace(name="blocks.0.hook_out")


def values() -> torch.Tensor:
    return torch.randn(20, 5, 8, generator=torch.Generator().manual_seed(0))


def test_what_cannot_be_read_is_an_error_of_the_result_and_not_of_the_pass():
    made = Spectrum(ranks=(1, None)).as_hook()
    with pytest.raises(DataError, match="never called"):
        made.compute()
    made(values(), hook=POINT)
    made(values() / 0, hook=POINT)
    made(values(), hook=POINT)
    with pytest.raises(DataError, match="NaN or infinite"):
        made.compute()


def test_padding_that_no_mask_leaves_out_is_said(monkeypatch):
    monkeypatch.setattr(hook, "counted_special", lambda *_: 4)
    made = Spectrum(ranks=(1, None)).as_hook()
    for _ in range(2):
        made(values(), hook=POINT)
    with pytest.warns(UserWarning, match="8 of the rows at 'blocks.0.hook_out' are padding"):
        found = made.compute()
    assert found["blocks.0.hook_out"].n_samples == 200
    masked = Spectrum(ranks=(1, None)).as_hook(mask=torch.ones(20, 5, dtype=torch.bool))
    masked(values(), hook=POINT)
    masked.compute()  # a warning would be an error here
