"""Autoencoders of sparsify (github.com/EleutherAI/sparsify): cfg.json, sae.safetensors.

The folder is called after the module whose output it reads, or, for a transcoder, whose input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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

WEIGHTS = "sae.safetensors"
_SEED = re.compile(r"^seed\d+$")  # with several seeds the folders lie one deeper


def read(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: str, scale: float | None
) -> Contents:
    """See `read_autoencoder`."""
    choice(config, "signed", False, False)
    activation = choice(config, "activation", "topk", "topk", "groupmax")
    transcodes = choice(config, "transcode", False, False, True)
    leave_none(tensors, "encoder.weight", "encoder.bias", "W_dec", "b_dec", "W_skip")
    weight, bias, shift = take(tensors, "encoder.weight", "encoder.bias", "b_dec")
    decoder = None if transcodes or "W_dec" not in tensors else take(tensors, "W_dec")[0]
    encoder = Encoder(
        weight,
        bias,
        activation,
        whole(config, "k"),
        shift=None if transcodes else shift,
        scale=scale or 1.0,
        decoder=decoder,
        decoder_bias=None if transcodes else shift,
    )
    if whole(config, "d_in") != encoder.width:
        raise DataError(f"its d_in is {config['d_in']} and its encoder says {encoder.width}")
    hook = "" if _SEED.match(folder) or not re.search(r"\d", folder) else folder
    return Contents(
        encoder,
        f"{hook}:in" if hook and transcodes else hook,
        {
            "format": "sparsify",
            "architecture": activation,
            "transcode": transcodes,
            **({"hook_name": hook} if hook else {}),
        },
    )
