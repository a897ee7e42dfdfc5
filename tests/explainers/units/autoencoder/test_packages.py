"""Activations beside those of SAELens and sparsify themselves, in an environment that has them.

Run by `make test-packages`; elsewhere these are skipped by name.
"""

from __future__ import annotations

import os
import warnings

import pytest
import torch
from autoencoder_folders import FEATURES, WIDTH, sae_lens_folder, sparsify_folder, values, weights

from polycode_plugins.explainers import read_autoencoder

if "FOREIGN_PACKAGES" not in os.environ:
    pytest.skip("needs the packages that `make test-packages` installs", allow_module_level=True)

warnings.simplefilter("ignore")
os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # whose kernels need a GPU
sae_lens = pytest.importorskip("sae_lens")
sparsify = pytest.importorskip("sparsify")

pytestmark = pytest.mark.filterwarnings("ignore")

_G = torch.Generator().manual_seed(5)
THRESHOLD = {"threshold": torch.rand(FEATURES, generator=_G)}
GATED = {name: 0.3 * torch.randn(FEATURES, generator=_G) for name in ("b_gate", "b_mag", "r_mag")}
SKIP = {"W_skip": torch.randn(WIDTH, WIDTH, generator=_G)}
LENS = {
    "standard": ("standard", {}, {}),
    "standard, no b_dec": ("standard", {}, {"apply_b_dec_to_input": False}),
    "jumprelu": ("jumprelu", THRESHOLD, {}),
    "topk": ("topk", {}, {"k": 4}),
    "topk, rescaled": ("topk", {}, {"k": 4, "rescale_acts_by_decoder_norm": True}),
    "abstopk": ("abstopk", {}, {"k": 4}),
    "gated": ("gated", GATED, {}),
    "constant norm": ("jumprelu", THRESHOLD, {"normalize_activations": "constant_norm_rescale"}),
    "layer norm": ("topk", {}, {"k": 4, "normalize_activations": "layer_norm"}),
    "transcoder": ("transcoder", {}, {"d_out": WIDTH, "apply_b_dec_to_input": False}),
    "skip transcoder": ("skip_transcoder", SKIP, {"d_out": WIDTH, "apply_b_dec_to_input": False}),
    "jumprelu transcoder": (
        "jumprelu_transcoder",
        THRESHOLD,
        {"d_out": WIDTH, "apply_b_dec_to_input": False},
    ),
}


def theirs(folder, x):
    made = sae_lens.SAE.load_from_disk(str(folder), device="cpu")
    with torch.no_grad():
        return made.encode(x), made(x)


@pytest.mark.parametrize("case", LENS)
def test_saelens(tmp_path, case):
    architecture, more, config = LENS[case]
    held = {**weights(), **more}
    if architecture == "gated":
        del held["b_enc"]
    folder = sae_lens_folder(tmp_path / "x", architecture, held, **config)
    x = values()
    right, _ = theirs(folder, x)
    assert 0.05 < float((right != 0).float().mean()) < 0.95
    torch.testing.assert_close(read_autoencoder(folder).project(x), right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["standard", "topk, rescaled", "gated", "layer norm"])
def test_the_variance_that_saelens_explains(tmp_path, case):
    architecture, more, config = LENS[case]
    held = {**weights(), **more}
    if architecture == "gated":
        del held["b_enc"]
    folder = sae_lens_folder(tmp_path / "x", architecture, held, **config)
    x = values(3, 200, WIDTH)
    _, made = theirs(folder, x)
    if case == "layer norm":  # which SAELens undoes with each token's deviation and no epsilon
        mean, sd = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        x_in, made = (x - mean) / sd, (made - mean) / sd
    else:
        x_in = x
    right = 1 - float(((x_in - made) ** 2).sum() / ((x_in - x_in.mean(0)) ** 2).sum())
    encoder = read_autoencoder(folder).encoder
    assert encoder is not None
    assert encoder.explained_variance(x) == pytest.approx(right, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
@pytest.mark.parametrize("rescaled", [False, True])
def test_batch_topk_as_trained_and_as_saved_for_inference(tmp_path, architecture, rescaled):
    kinds = {
        "batchtopk": (sae_lens.BatchTopKTrainingSAE, sae_lens.BatchTopKTrainingSAEConfig),
        "matryoshka_batchtopk": (
            sae_lens.MatryoshkaBatchTopKTrainingSAE,
            sae_lens.MatryoshkaBatchTopKTrainingSAEConfig,
        ),
    }
    made, configuration = kinds[architecture]
    more = {"matryoshka_widths": [FEATURES]} if architecture.startswith("mat") else {}
    config = configuration(
        d_in=WIDTH, d_sae=FEATURES, k=4, rescale_acts_by_decoder_norm=rescaled, **more
    )
    sae = made(config)
    with torch.no_grad():
        for name, tensor in weights().items():
            getattr(sae, name).copy_(tensor)
    sae.topk_threshold.fill_(0.8)
    sae.save_model(tmp_path / "trained")
    sae.save_inference_model(tmp_path / "inference")
    x = values()
    right, _ = theirs(tmp_path / "inference", x)
    assert 0.05 < float((right != 0).float().mean()) < 0.95
    for folder in ("trained", "inference"):
        read = read_autoencoder(tmp_path / folder)
        torch.testing.assert_close(read.project(x), right, rtol=1e-5, atol=1e-6)


def test_a_flat_configuration_of_before_version_6(tmp_path):
    flat = {
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3},
        "hook_point": "blocks.2.hook_resid_pre",
        "hook_point_head_index": None,
        "normalize_activations": False,
        "metadata": None,
    }
    folder = sae_lens_folder(tmp_path / "x", "standard", **flat)
    text = (folder / "cfg.json").read_text().replace('"metadata": null', '"sae_lens_version": "3"')
    (folder / "cfg.json").write_text(text)
    x = values()
    read = read_autoencoder(folder)
    torch.testing.assert_close(read.project(x), theirs(folder, x)[0], rtol=1e-5, atol=1e-6)
    assert read.hook == "blocks.2.hook_resid_pre"


@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize(("activation", "k"), [("topk", 4), ("groupmax", 6)])
def test_sparsify(tmp_path, transcode, activation, k):
    folder = sparsify_folder(tmp_path / "h.2", activation=activation, k=k, transcode=transcode)
    made = sparsify.SparseCoder.load_from_disk(folder)
    x = values(2, 40, WIDTH)
    with torch.no_grad():
        kept, at, _ = made.encode(x)
        right = torch.zeros(len(x), FEATURES).scatter_(1, at, kept)
        fvu = made(x).fvu
    read = read_autoencoder(folder)
    torch.testing.assert_close(read.project(x), right, rtol=1e-5, atol=1e-6)
    assert read.hook == ("h.2:in" if transcode else "h.2")
    explained = read.encoder.explained_variance(x)
    assert explained is None if transcode else explained == pytest.approx(1 - float(fvu), rel=1e-4)
