"""Folders of SAELens and sparsify: their activations by formulas of our own, and what is refused.

`test_packages.py` has the packages' own numbers.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from autoencoder_folders import FEATURES, WIDTH, sae_lens_folder, sparsify_folder, values, weights
from hostile_values import answer, broken, drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from polycode_plugins.errors import DataError
from polycode_plugins.explainers import read_autoencoder

ROWS = values(1, 40, WIDTH)
THRESHOLD = {"threshold": torch.linspace(0, 1.5, FEATURES)}
GATED = {
    "b_gate": torch.linspace(-1, 1, FEATURES),
    "b_mag": torch.linspace(0.5, -0.5, FEATURES),
    "r_mag": torch.linspace(-0.3, 0.3, FEATURES),
}


def pre_activations(x=None, shift=True):
    """float64 [rows, features]."""
    w = {name: tensor.double().numpy() for name, tensor in weights().items()}
    x = ROWS.double().numpy() if x is None else x
    return (x - w["b_dec"] * shift) @ w["W_enc"] + w["b_enc"]


def largest(p, k, by=None):
    """The k largest of each row, and zeros."""
    by = p if by is None else by
    rank = (-by).argsort(axis=-1).argsort(axis=-1)
    return np.where(rank < k, p, 0)


def close(found, right):
    np.testing.assert_allclose(found.numpy(), right, rtol=1e-4, atol=1e-5)
    assert 0.02 < (right != 0).mean() < 0.98


def test_standard(tmp_path):
    features = read_autoencoder(sae_lens_folder(tmp_path / "x"))
    close(features.project(ROWS), np.maximum(pre_activations(), 0))
    unshifted = sae_lens_folder(tmp_path / "y", apply_b_dec_to_input=False)
    close(read_autoencoder(unshifted).project(ROWS), np.maximum(pre_activations(shift=False), 0))
    assert (features.kind, features.hook, features.one_sided) == (
        "feature",
        "blocks.2.hook_resid_pre",
        True,
    )
    assert features.names[7] == "feature 7"
    assert features.origin["neuronpedia_id"] == "tiny-gpt2/2-res-x"


def test_jumprelu_and_batch_topk_at_inference(tmp_path):
    p = pre_activations()
    folder = sae_lens_folder(tmp_path / "x", "jumprelu", {**weights(), **THRESHOLD})
    right = np.where(p > THRESHOLD["threshold"].numpy(), np.maximum(p, 0), 0)
    close(read_autoencoder(folder).project(ROWS), right)
    # As it is trained: one threshold for all features, on pre-activations times decoder norms.
    held = {**weights(), "topk_threshold": torch.tensor(0.8, dtype=torch.float64)}
    norms = weights()["W_dec"].norm(dim=-1).double().numpy()
    for rescaled, scaled in ((False, p), (True, p * norms)):
        folder = sae_lens_folder(
            tmp_path / f"{rescaled}", "batchtopk", held, rescale_acts_by_decoder_norm=rescaled
        )
        close(read_autoencoder(folder).project(ROWS), np.where(scaled > 0.8, scaled, 0))


def test_topk_and_abstopk(tmp_path):
    p = pre_activations()
    folder = sae_lens_folder(tmp_path / "x", "topk", k=4)
    close(read_autoencoder(folder).project(ROWS), np.maximum(largest(p, 4), 0))
    signed = read_autoencoder(sae_lens_folder(tmp_path / "y", "abstopk", k=4))
    close(signed.project(ROWS), largest(p, 4, by=np.abs(p)))
    assert not signed.one_sided
    norms = weights()["W_dec"].norm(dim=-1).double().numpy()
    folder = sae_lens_folder(tmp_path / "z", "topk", k=4, rescale_acts_by_decoder_norm=True)
    close(read_autoencoder(folder).project(ROWS), np.maximum(largest(p * norms, 4), 0))


def test_gated(tmp_path):
    held = {**weights(), **GATED}
    del held["b_enc"]
    folder = sae_lens_folder(tmp_path / "x", "gated", held)
    linear = pre_activations() - weights()["b_enc"].double().numpy()
    gate, bias, r = (GATED[name].double().numpy() for name in ("b_gate", "b_mag", "r_mag"))
    right = (linear + gate > 0) * np.maximum(linear * np.exp(r) + bias, 0)
    close(read_autoencoder(folder).project(ROWS), right)


def test_normalisations(tmp_path):
    x = ROWS.double().numpy()
    length = x * np.sqrt(WIDTH) / np.linalg.norm(x, axis=-1, keepdims=True)
    standard = (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + 1e-5)
    for how, normalised in (("constant_norm_rescale", length), ("layer_norm", standard)):
        folder = sae_lens_folder(tmp_path / how, normalize_activations=how)
        right = np.maximum(pre_activations(normalised), 0)
        close(read_autoencoder(folder).project(ROWS), right)
    folder = sae_lens_folder(tmp_path / "mean", normalize_activations="expected_average_only_in")
    with pytest.raises(DataError, match="does not hold the factor; give scale="):
        read_autoencoder(folder)
    scaled = read_autoencoder(folder, scale=0.25)
    close(scaled.project(ROWS), np.maximum(pre_activations(x * 0.25), 0))


def test_transcoders_read_what_the_map_is_given_and_explain_no_variance(tmp_path):
    lens = sae_lens_folder(tmp_path / "x", "transcoder", d_out=WIDTH, apply_b_dec_to_input=False)
    right = np.maximum(pre_activations(shift=False), 0)
    close(read_autoencoder(lens).project(ROWS), right)
    assert read_autoencoder(lens).encoder.explained_variance(ROWS) is None
    other = sparsify_folder(tmp_path / "layers.3.mlp", transcode=True)
    close(read_autoencoder(other).project(ROWS), np.maximum(largest(right, 4), 0))
    assert read_autoencoder(other).hook == "layers.3.mlp:in"


def test_sparsify(tmp_path):
    p = np.maximum(pre_activations(), 0)
    features = read_autoencoder(sparsify_folder(tmp_path / "layers.3"))
    close(features.project(ROWS), largest(p, 4))
    assert features.hook == "layers.3"
    groups = p.reshape(len(p), 6, 4)
    right = np.where(groups == groups.max(-1, keepdims=True), groups, 0).reshape(p.shape)
    folder = sparsify_folder(tmp_path / "layers.4", activation="groupmax", k=6)
    close(read_autoencoder(folder).project(ROWS), right)
    assert read_autoencoder(sparsify_folder(tmp_path / "best")).hook == ""


def test_some_features_read_what_they_read_among_all(tmp_path):
    for folder in (
        sae_lens_folder(tmp_path / "x", "topk", k=4),
        sae_lens_folder(tmp_path / "y", "jumprelu", {**weights(), **THRESHOLD}),
        sparsify_folder(tmp_path / "h.1", activation="groupmax", k=6),
    ):
        features = read_autoencoder(folder)
        every, some = features.project(values()), features.select([20, 3, 11])
        torch.testing.assert_close(some.project(values()), every[..., [20, 3, 11]])
        (at, by_unit), *more = some.by_unit(values())
        assert (at, more) == (0, [])
        torch.testing.assert_close(by_unit, every[..., [20, 3, 11]].movedim(-1, 0))
        x = values()
        before = some.project(x)
        x += 1  # what is kept of a tensor is of what was in it
        assert not torch.equal(some.project(x), before)


def test_explained_variance_of_a_dictionary_that_is_true(tmp_path):
    eye = torch.eye(WIDTH)
    true = {
        "W_enc": torch.cat([eye, -eye], dim=1),
        "b_enc": torch.zeros(2 * WIDTH),
        "W_dec": torch.cat([eye, -eye]),
        "b_dec": torch.zeros(WIDTH),
    }
    encoder = read_autoencoder(sae_lens_folder(tmp_path / "x", tensors=true)).encoder
    assert encoder.explained_variance(ROWS) == pytest.approx(1)
    half = {**true, "W_dec": true["W_dec"] / 2, "b_dec": torch.zeros(WIDTH)}
    encoder = read_autoencoder(sae_lens_folder(tmp_path / "y", tensors=half)).encoder
    centred = ROWS - ROWS.mean(0)
    assert encoder.explained_variance(centred) == pytest.approx(0.75)
    assert read_autoencoder(sae_lens_folder(tmp_path / "z")).encoder.explained_variance(ROWS) < 0


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("temporal", {}, "its architecture is 'temporal'"),
        ("standard", {"normalize_activations": "covariance_whitening"}, "whitened"),
        ("standard", {"normalize_activations": "cubed"}, "'cubed'"),
        ("standard", {"d_in": WIDTH + 1}, f"d_in is {WIDTH + 1} and its encoder says {WIDTH}"),
        ("standard", {"d_sae": 3}, "d_sae is 3"),
        ("standard", {"apply_b_dec_to_input": "yes"}, "'yes', and what is read is True or False"),
        ("topk", {"k": None}, "its k is None"),
        ("topk", {"k": FEATURES + 1}, f"keeps {FEATURES + 1} of {FEATURES} features"),
        ("jumprelu", {}, "lack 'threshold'"),
        ("batchtopk", {"k": 4}, "holds no topk_threshold"),
        ("gated", {}, "b_gate"),
        ("standard", {"metadata": {"hook_head_index": 3}}, "a single attention head"),
        ("standard", {"metadata": None, "activation_fn": "tanh-relu"}, "'tanh-relu'"),
    ],
)
def test_what_would_change_a_number_is_refused(tmp_path, architecture, config, message):
    folder = sae_lens_folder(tmp_path / "x", architecture, **config)
    with pytest.raises(DataError, match=message):
        read_autoencoder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signed": True}, "its signed is True"),
        ({"activation": "relu"}, "its activation is 'relu'"),
        ({"k": 0}, "its k is 0"),
        ({"d_in": 9}, "its d_in is 9"),
        ({"k": 5, "activation": "groupmax"}, "do not make 5 equal groups"),
    ],
)
def test_sparsify_of_other_kinds_is_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read_autoencoder(sparsify_folder(tmp_path / "h.1", **change))


def test_folders_that_hold_something_else(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        read_autoencoder(tmp_path / "none")
    (tmp_path / "run").mkdir()
    sparsify_folder(tmp_path / "run" / "h.1")
    with pytest.raises(DataError, match=r"1 folders of autoencoders \(h.1\); give one of them"):
        read_autoencoder(tmp_path / "run")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "ae.pt").write_bytes(b"\x80")
    with pytest.raises(DataError, match=r"ae.pt, which is not read: load it with SAELens"):
        read_autoencoder(tmp_path / "pickled")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no autoencoder"):
        read_autoencoder(tmp_path / "empty")


def test_damaged_weights(tmp_path):
    folder = sae_lens_folder(tmp_path / "x")
    path = folder / "sae_weights.safetensors"
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], b"\xff" * 64, whole[:-40]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="is not read"):
            read_autoencoder(folder)
    for name, tensor, message in (
        ("W_dec", torch.full((FEATURES, WIDTH), torch.nan), "NaN or infinity"),
        ("b_enc", torch.zeros(3), "do not go together"),
        ("scaling_factor", torch.full((FEATURES,), 2.0), "finetuned scaling_factor"),
        ("W_more", torch.zeros(2), "'W_more', which is not read"),
    ):
        sae_lens_folder(folder, tensors={**weights(), name: tensor})
        with pytest.raises(DataError, match=message):
            read_autoencoder(folder)
    sae_lens_folder(folder, tensors={**weights(), "scaling_factor": torch.ones(FEATURES)})
    assert len(read_autoencoder(folder)) == FEATURES


@settings(drawn, max_examples=150)
@given(st.data())
@pytest.mark.usefixtures("elsewhere")
def test_any_configuration_is_read_or_refused_in_one_sentence(tmp_path_factory, data):
    base = tmp_path_factory.getbasetemp() / "hostile"
    make = data.draw(st.sampled_from([sae_lens_folder, sparsify_folder]))
    folder = make(base / make.__name__ / "h.2")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(data.draw(broken(config))))
    found = answer(lambda: read_autoencoder(folder).project(ROWS))
    assert found is None or found.shape == (40, FEATURES)
