"""Autoencoders of SAELens (github.com/decoderesearch/SAELens): cfg.json, sae_weights.safetensors.

Versions before 6 write one flat JSON with the hook point in it; from 6 on, what is about the model
stands under "metadata".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.autoencoder.contents import (
    Contents,
    choice,
    leave_none,
    take,
    whole,
)
from polycode_plugins.explainers.units.autoencoder.encoder import Encoder

WEIGHTS = "sae_weights.safetensors"
_TRANSCODERS = {
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_BATCH = ("batchtopk", "matryoshka_batchtopk")
ARCHITECTURES = ("standard", "jumprelu", "topk", "abstopk", "gated", *_BATCH, *_TRANSCODERS)
#: What is worth recording of the model that it was trained on.
_RECORDED = (
    "model_name",
    "hook_name",
    "prepend_bos",
    "context_size",
    "dataset_path",
    "neuronpedia_id",
    "model_from_pretrained_kwargs",
    "sae_lens_version",
)


def read(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: str, scale: float | None
) -> Contents:
    """See `read_autoencoder`."""
    del folder
    config, about = _flattened(config)
    architecture = config.get("architecture", "standard")
    if architecture not in ARCHITECTURES:
        raise DataError(
            f"its architecture is {architecture!r}, and those that are read are "
            f"{', '.join(ARCHITECTURES)}"
        )
    transcodes = architecture in _TRANSCODERS
    if about.get("hook_head_index") is not None:
        raise DataError("it reads a single attention head, which is not read here")
    choice(config, "reshape_activations", "none", "none", "hook_z")
    normalisation, factor = _normalisation(config, scale)
    weight, bias, parts = _encoder(_TRANSCODERS.get(architecture, architecture), config, tensors)
    (shift,) = take(tensors, "b_dec")
    if transcodes or not choice(config, "apply_b_dec_to_input", True, True, False):
        shifted = None
    else:
        shifted = shift
    encoder = Encoder(
        weight,
        bias,
        **parts,
        shift=shifted,
        normalisation=normalisation,
        scale=factor,
        decoder=None if transcodes else _decoder(config, tensors),
        decoder_bias=None if transcodes else shift,
    )
    for name, size in (("d_in", encoder.width), ("d_sae", len(encoder))):
        if whole(config, name) != size:
            raise DataError(f"its {name} is {config[name]} and its encoder says {size}")
    origin = {
        "format": "SAELens",
        "architecture": architecture,
        "normalize_activations": config.get("normalize_activations", "none"),
        **{name: about[name] for name in _RECORDED if about.get(name) not in (None, {}, "")},
    }
    return Contents(encoder, str(about.get("hook_name") or ""), origin)


def _flattened(config: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What decides the activations, and what is about the model, in the words of version 6."""
    about = config.get("metadata")
    if isinstance(about, Mapping):
        return dict(config), about
    old = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index"}
    flat = {old.get(name, name): value for name, value in config.items()}
    activation = flat.get("activation_fn", flat.get("activation_fn_str", "relu"))
    if activation in ("topk", "TopK"):
        flat["architecture"] = "topk"
        flat["k"] = (flat.get("activation_fn_kwargs") or {}).get("k", flat.get("k"))
    elif activation != "relu":
        raise DataError(f"its activation function is {activation!r}; relu and topk are read")
    if isinstance(flat.get("normalize_activations"), bool):
        flat["normalize_activations"] = (
            "expected_average_only_in" if flat["normalize_activations"] else "none"
        )
    if flat.get("normalize_activations") is None:
        flat["normalize_activations"] = "none"
    return flat, flat


def _normalisation(config: Mapping[str, Any], scale: float | None) -> tuple[Any, float]:
    """How activations are normalised, and the factor that they are multiplied with."""
    how = config.get("normalize_activations", "none")
    if how == "expected_average_only_in":
        if scale is None:
            raise DataError(
                "it was trained on activations scaled to an expected norm of sqrt(width), and its "
                "folder does not hold the factor; give scale=FACTOR (sqrt(width) over the mean "
                "norm of the activations it was trained on), or scale=1 where the weights have it "
                "folded in"
            )
        return "none", scale
    if how == "covariance_whitening":
        raise DataError(
            "it was trained on whitened activations, whose matrix its folder does not hold; save "
            "it with SAELens's save_inference_model, which folds the matrix into the weights"
        )
    normalisations = ("none", "constant_norm_rescale", "layer_norm")
    return choice(config, "normalize_activations", "none", *normalisations), scale or 1.0


def _encoder(
    architecture: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Weight [features, width], bias [features], and what else `Encoder` takes."""
    known = ["W_enc", "b_enc", "W_dec", "b_dec", "W_skip", "scaling_factor"]
    _check_scaling(tensors)
    if architecture == "gated":
        leave_none(tensors, *known, "b_gate", "b_mag", "r_mag")
        encoder, gate, bias, magnitudes = take(tensors, "W_enc", "b_gate", "b_mag", "r_mag")
        parts = {"activation": "gated", "gate_bias": gate, "log_magnitudes": magnitudes}
        return encoder.T.contiguous(), bias, parts
    encoder, bias = take(tensors, "W_enc", "b_enc")
    weight = encoder.T.contiguous()
    if architecture == "jumprelu":
        leave_none(tensors, *known, "threshold")
        (threshold,) = take(tensors, "threshold")
        return weight, bias, {"activation": "jumprelu", "threshold": threshold}
    norms = _norms(config, tensors)
    if norms is not None:  # selection by pre-activation times the decoder's norm, which is kept
        weight, bias = weight * norms[:, None], bias * norms
    if architecture in ("topk", "abstopk"):
        leave_none(tensors, *known)
        return weight, bias, {"activation": architecture, "k": whole(config, "k")}
    if architecture in _BATCH:
        leave_none(tensors, *known, "topk_threshold")
        if "topk_threshold" not in tensors:
            raise DataError(
                "it is of batch top-k and holds no topk_threshold, without which its activations "
                "depend on the batch; save it with SAELens's save_inference_model"
            )
        threshold = tensors["topk_threshold"].float().reshape(()).expand(len(bias)).contiguous()
        return weight, bias, {"activation": "jumprelu", "threshold": threshold}
    leave_none(tensors, *known)
    return weight, bias, {"activation": "relu"}


def _check_scaling(tensors: Mapping[str, Tensor]) -> None:
    """Raise DataError where features are scaled after the fact, as versions before 6 could."""
    factor = tensors.get("scaling_factor")
    if factor is not None and not bool(((factor - 1).abs() < 1e-5).all()):
        raise DataError("its features are scaled by a finetuned scaling_factor, which is not read")


def _norms(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor | None:
    """float32 [features]: lengths of the decoder's rows, where features are rescaled by them."""
    if not choice(config, "rescale_acts_by_decoder_norm", False, True, False):
        return None
    (decoder,) = take(tensors, "W_dec")
    norms: Tensor = torch.linalg.vector_norm(decoder, dim=-1)
    return norms


def _decoder(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    (decoder,) = take(tensors, "W_dec")
    selects = config.get("architecture") in ("topk", "abstopk", *_BATCH)
    norms = _norms(config, tensors) if selects else None
    return decoder if norms is None else decoder / norms[:, None].clamp(min=1e-8)
