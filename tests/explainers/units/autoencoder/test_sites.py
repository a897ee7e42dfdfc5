"""An autoencoder's site is the same tensor whichever adapter reads the model."""

from __future__ import annotations

import pytest
import torch
from autoencoder_folders import sae_lens_folder, sparsify_folder, weights

from polycode_plugins.adapters.base import Batch
from polycode_plugins.data import TINY_GPT2
from polycode_plugins.errors import DataError
from polycode_plugins.explainers import read_autoencoder
from polycode_plugins.explainers.units.autoencoder.sites import site_of
from polycode_plugins.loading import load

TOKENS = torch.arange(2 * 12).reshape(2, 12) * 7 + 5
ADAPTERS = ("transformer-lens", "transformers", "nnsight")
HOOKS = {
    "blocks.2.hook_resid_pre": "h.2:in",
    "blocks.2.hook_resid_post": "h.2",
    "blocks.2.hook_resid_mid": "h.2.ln_2:in",
    "blocks.2.hook_mlp_out": "h.2.mlp",
    "blocks.2.hook_attn_out": "h.2.attn",
    "blocks.2.mlp.hook_post": "h.2.mlp.c_proj:in",
    "blocks.2.attn.hook_z": "h.2.attn.c_proj:in",
}


@pytest.fixture(scope="module")
def adapters():
    return {name: load(TINY_GPT2, name) for name in ADAPTERS}


def read(adapter, site):
    """float32 [rows, positions, features] at a site."""
    found = []
    batch = Batch(TOKENS, torch.arange(2))
    sites = adapter.resolve([site], batch)
    adapter.run(batch, sites, lambda _, values: found.append(values.values.flatten(2).clone()))
    assert len(found) == 1
    return found[0]


def features(tmp_path, hook, width):
    folder = sae_lens_folder(tmp_path / "x", tensors=weights(0, width, 6), hook=hook)
    return read_autoencoder(folder)


@pytest.mark.parametrize("hook", HOOKS)
def test_names_of_transformer_lens(adapters, tmp_path, hook):
    width = 512 if hook.endswith("hook_post") else 128
    asked = features(tmp_path, hook, width)
    assert site_of(asked, adapters["transformer-lens"]) == hook
    right = read(adapters["transformer-lens"], hook)
    assert right.shape[-1] == width
    for name in ADAPTERS[1:]:
        site = site_of(asked, adapters[name])
        assert site.endswith(HOOKS[hook])
        torch.testing.assert_close(read(adapters[name], site), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("path", "transcode", "lens"),
    [
        ("h.2", False, "blocks.2.hook_resid_post"),
        ("h.2.mlp", False, "blocks.2.hook_mlp_out"),
        ("h.2.mlp", True, "blocks.2.mlp.hook_in"),
        ("h.2.attn", False, "blocks.2.hook_attn_out"),
    ],
)
def test_paths_of_modules(adapters, tmp_path, path, transcode, lens):
    folder = sparsify_folder(tmp_path / path, weights(0, 128, 6), transcode=transcode)
    asked = read_autoencoder(folder)
    assert site_of(asked, adapters["transformer-lens"]) == lens
    right = read(adapters["transformers"], site_of(asked, adapters["transformers"]))
    torch.testing.assert_close(read(adapters["transformer-lens"], lens), right)


def test_what_needs_a_guess_is_asked_for(tmp_path):
    class Listed:
        name = "listed"

        def __init__(self, *names):
            self.names = names

        def sites(self):
            return [type("Site", (), {"name": n}) for n in self.names]

    asked = features(tmp_path, "blocks.1.hook_resid_post", 8)
    two = Listed("encoder.layers.1", "decoder.layers.1")
    with pytest.raises(DataError, match=r"may be 'encoder.layers.1' or 'decoder.layers.1'"):
        site_of(asked, two)
    with pytest.raises(DataError, match="no site that is known to be it"):
        site_of(asked, Listed("stem", "head"))
    with pytest.raises(DataError, match="no site that is known to be it"):
        site_of(features(tmp_path, "blocks.1.ln2.hook_normalized", 8), two)
    with pytest.raises(DataError, match="does not say which site it reads"):
        site_of(features(tmp_path, "", 8), two)
    told = read_autoencoder(tmp_path / "x", site="decoder.layers.1")
    assert site_of(told, two) == "decoder.layers.1"
    # A block's parts with a norm of their own behind: the norm's output is what the block adds.
    after = Listed("layers.1", "layers.1.mlp", "layers.1.post_feedforward_layernorm")
    asked = features(tmp_path, "blocks.1.hook_mlp_out", 8)
    assert site_of(asked, after) == "layers.1.post_feedforward_layernorm"
    after.names += ("layers.1.self_attn", "layers.1.post_attention_layernorm")
    asked = features(tmp_path, "blocks.1.hook_attn_out", 8)
    assert site_of(asked, after) == "layers.1.post_attention_layernorm"
    before = Listed("layers.1", "layers.1.self_attn", "layers.1.post_attention_layernorm")
    assert site_of(asked, before) == "layers.1.self_attn"
    lens = ("blocks.1.hook_mlp_out", "blocks.1.hook_resid_post")
    module = read_autoencoder(sparsify_folder(tmp_path / "layers.1.mlp"))
    assert site_of(module, Listed(*lens)) == "blocks.1.hook_mlp_out"
    with pytest.raises(DataError, match="no site that is known to be it"):
        site_of(module, Listed(*lens, "blocks.1.ln2_post.hook_normalized"))
