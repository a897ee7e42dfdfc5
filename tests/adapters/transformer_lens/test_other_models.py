"""The `transformer-lens` adapter on models that are no causal transformer."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from capture_helpers import Mean, streamed
from lens_passes import BLOCKS, TOKENS, cached, first
from tiny_models import (
    CONTEXT,
    HEADS,
    VOCABULARY,
    WIDTH,
    lens_model,
    save_model,
    transformer_lens,
)
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.adapters.transformer_lens.adapter import TransformerLensAdapter
from polycode_plugins.errors import ModelError


def test_an_encoder_works(tmp_path: Path) -> None:
    model = lens_model("bridge", save_model(tmp_path, "bert"))
    adapter = TransformerLensAdapter(model, prepend_bos=False)
    assert adapter.default_sites(adapter.sites(adapter.example())) == BLOCKS
    item = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
    item["attention_mask"][0, 4:] = 0
    got = first(adapter, [item], [*BLOCKS, "blocks.0.hook_resid_mid"])
    cache = cached(model, TOKENS, attention_mask=item["attention_mask"])
    assert {n: torch.equal(a.values, cache[n]) for n, a in got.items()} == dict.fromkeys(got, True)
    assert got[BLOCKS[0]].matrix().shape[0] == TOKENS.numel() - 3


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="an encoder and a decoder"):
        pc.load(lens_model("bridge", save_model(tmp_path, "t5")))


def test_a_hooked_encoder_works() -> None:
    try:
        encoder_class = transformer_lens.HookedEncoder
    except ImportError:
        pytest.skip("this TransformerLens has no HookedEncoder")
    config = transformer_lens.HookedTransformerConfig(
        n_layers=2,
        d_model=WIDTH,
        d_head=8,
        n_heads=HEADS,
        d_mlp=48,
        n_ctx=CONTEXT,
        d_vocab=VOCABULARY,
        act_fn="gelu",
        device="cpu",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = encoder_class(config)
    for i, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(i))
    adapter = TransformerLensAdapter(model)
    attention = torch.ones_like(TOKENS)
    attention[1, 5:] = 0
    site = "blocks.0.hook_resid_post"
    with torch.no_grad(), pc.attach(model, [site, "hook_full_embed"], Mean()) as probe:
        model(TOKENS, one_zero_attention_mask=attention)
    assert probe.n_samples == dict.fromkeys(probe.n_samples, TOKENS.numel() - 2)
    got = first(adapter, [{"input_ids": TOKENS, "attention_mask": attention}], site)[site]
    cache = model.run_with_cache(TOKENS, one_zero_attention_mask=attention)[1]
    assert torch.equal(got.values, cache[site])


def test_a_hooked_module_of_ones_own_works() -> None:
    from transformer_lens.hook_points import HookPoint

    try:
        from transformer_lens.HookedRootModule import HookedRootModule
    except ModuleNotFoundError:  # where TransformerLens 2 has it
        from transformer_lens.hook_points import HookedRootModule

    class Toy(HookedRootModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 4)
            self.hook_hidden = HookPoint()
            self.setup()

        def forward(self, x: Tensor) -> Tensor:
            return self.hook_hidden(self.inner(x)).relu()

    model = Toy()
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    got = streamed(TransformerLensAdapter(model), x, None, batch_size=4)
    torch.testing.assert_close(got["hook_hidden"], model.inner(x).detach())
    with pc.attach(model, None, Mean()) as probe:
        model(x)
        model.run_with_hooks(x)
    assert probe.n_samples == {"hook_hidden": 18}


def test_a_plain_module_is_refused() -> None:
    with pytest.raises(ModelError, match="use the 'module' adapter"):
        TransformerLensAdapter(nn.Linear(2, 2))
