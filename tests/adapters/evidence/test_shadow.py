"""Copies that are run for their shapes alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polycode_plugins.adapters.evidence.shadow import _LIKE_THE_FIRST, Shadow, Shapes

MODULES = {
    "batch norm": (nn.BatchNorm2d(4), (2, 4, 5, 3)),
    "batch norm without weights": (nn.BatchNorm1d(4, affine=False), (2, 4)),
    "layer norm": (nn.LayerNorm((5, 3)), (2, 4, 5, 3)),
    "gelu": (nn.GELU(), (2, 3)),
    "silu": (nn.SiLU(), (2, 3)),
    "hardswish": (nn.Hardswish(inplace=True), (2, 3)),
    "hardsigmoid": (nn.Hardsigmoid(), (2, 3)),
    "relu6": (nn.ReLU6(), (2, 3)),
}


class Noting(Shapes):
    """Which of the functions that it knows were answered without a write to their argument."""

    def __init__(self):
        super().__init__()
        self.untouched = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        before = args[0]._version if func in _LIKE_THE_FIRST else 0
        found = super().__torch_function__(func, types, args, kwargs)
        if func in _LIKE_THE_FIRST:
            self.untouched.append(args[0]._version == before)
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", MODULES)
def test_shapes_are_those_of_torch(name, dtype):
    module, shape = MODULES[name]
    module = module.to("meta", dtype).eval()
    values = torch.empty(shape, device="meta", dtype=dtype).transpose(0, -1)
    values = values.contiguous().transpose(0, -1)
    expected = module(values.clone())
    with Noting() as mode:
        found = module(values)
    assert mode.untouched == [True]  # torch itself writes where it is asked to
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.stride() == expected.stride()


def test_what_does_not_fit_is_refused_as_by_torch():
    batch, layer = nn.BatchNorm1d(4).to("meta").eval(), nn.LayerNorm(4).to("meta")
    five = torch.empty(2, 5, device="meta")
    for module in (batch, layer):
        with pytest.raises(RuntimeError), Shapes():
            module(five)
    with pytest.raises(ValueError, match="more than 1 value per channel"), Shapes():
        batch.train()(torch.empty(1, 4, device="meta"))


def test_values_are_computed():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.GELU()).eval()
    values = torch.randn(3, 4)
    with Shapes():
        found = nn.functional.gelu(input=model[0](values))
    assert torch.equal(found, model(values))
    assert torch.equal(Shadow(model).run((values,), {}), found)
    assert Shadow(model, "meta").run((values.to("meta"),), {}).is_meta
