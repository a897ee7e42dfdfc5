"""`load`: adapters and their options, asked for in ways that do not work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins.adapters.module import ModuleAdapter

MODEL = nn.Sequential(nn.Linear(6, 24), nn.Tanh())
DATA = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))


def test_an_adapter_that_is_made_belongs_in_the_place_of_the_model():
    made = ModuleAdapter(MODEL)
    with pytest.raises(pc.ModelError, match="this ModuleAdapter is made already; pass it as the m"):
        pc.analyze(MODEL, DATA, adapter=made)
    spectrum = pc.metrics.Spectrum(fit="huber", ranks=(1, None))
    assert list(pc.analyze(made, DATA, spectrum, "1")) == ["1"]
    with pytest.raises(pc.ModelError, match="name of an adapter or its class, not 5"):
        pc.load(MODEL, adapter=5)


def test_an_unknown_option_is_answered_with_those_there_are():
    with pytest.raises(pc.ModelError) as caught:
        pc.load(None, devise="cpu")
    assert str(caught.value) == (
        "the adapter 'transformer-lens' does not take this option: 'devise'; did you mean "
        "'device' or 'device_map'? (its options: device, dtype, device_map, trust_remote_code, "
        "prepend_bos, include_special)"
    )
    with pytest.raises(pc.ModelError, match=r"'ModuleAdapter' .*'devise' \(its options: axes\)$"):
        pc.load(MODEL, ModuleAdapter, devise="cpu")


def test_an_adapter_that_passes_options_on_decides_itself():
    class Open(ModuleAdapter):
        def __init__(self, model: nn.Module, **options: object) -> None:
            if "colour" in options:
                raise TypeError("no colours here")
            super().__init__(model)

    assert isinstance(pc.load(MODEL, Open, size=3), Open)
    with pytest.raises(pc.ModelError, match=r"'Open' does not take these options.*no colours here"):
        pc.load(MODEL, Open, colour="red")
