"""Copies that are run on other inputs."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from polycode_plugins.adapters.evidence.shadow import Shadow, Watch


def test_a_copy_computes_what_the_model_does_and_without_values_its_shape():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.GELU()).eval()
    values = torch.randn(3, 4)
    assert torch.equal(Shadow(model).run((values,), {}), model(values))
    found = Shadow(model, "meta").run((values.to("meta"),), {})
    assert found.is_meta
    assert found.shape == values.shape


@pytest.mark.parametrize("compared", [True, False])
def test_each_run_shows_its_own_and_a_run_that_failed_nothing(compared):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    shadow = Shadow(model)
    place = (model[0], 0, "out")
    watch = Watch(shadow, [place], compared=compared)
    with pytest.raises(RuntimeError):
        watch.run(shadow, (torch.randn(2, 4),), {})
    for rows in (2, 5):
        given = torch.randn(rows, 3)
        with torch.no_grad():
            seen = watch.run(shadow, (given,), {})
            assert torch.equal(seen.asked[place], model[0](given))  # as it was before the ReLU
        assert [shape for _, shape in seen.shapes] == [(rows, 4)] * 3
        assert len(seen.outputs) == (3 if compared else 0)


def test_a_copy_goes_when_nobody_needs_it():
    model = nn.Sequential(nn.Linear(3, 4))
    gc.disable()
    try:
        shadow = Shadow(model, "meta")
        watch = Watch(shadow, [(model[0], 0, "out")], compared=False)
        watch.run(shadow, (torch.empty(2, 3, device="meta"),), {})
        gone = weakref.ref(shadow.model)
        del shadow, watch
        assert gone() is None
    finally:
        gc.enable()
