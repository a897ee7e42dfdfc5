"""Folders of autoencoders with random weights, as SAELens and sparsify lay them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH, FEATURES = 8, 24


def weights(seed: int = 0, width: int = WIDTH, features: int = FEATURES) -> dict[str, Tensor]:
    """W_enc, b_enc, W_dec, b_dec of an autoencoder, in SAELens's names and shapes."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    return {
        "W_enc": normal(width, features) / width**0.5,
        "b_enc": 0.3 * normal(features),
        "W_dec": normal(features, width) * (0.5 + torch.rand(features, 1, generator=g)),
        "b_dec": 0.5 * normal(width),
    }


def values(seed: int = 1, *shape: int) -> Tensor:
    """Activations [3, 5, WIDTH], or of the shape given, with a mean that is not 0."""
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*(shape or (3, 5, WIDTH)), generator=g) + 0.7


def sae_lens_folder(
    path: Path,
    architecture: str = "standard",
    tensors: dict[str, Tensor] | None = None,
    hook: str = "blocks.2.hook_resid_pre",
    **config: Any,
) -> Path:
    """As version 6 writes it."""
    held = weights() if tensors is None else tensors
    path.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in held.items()}, path / "sae_weights.safetensors")
    written = {
        "architecture": architecture,
        "d_in": held["W_enc"].shape[0],
        "d_sae": held["W_enc"].shape[1],
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "model_name": "tiny-gpt2",
            "hook_name": hook,
            "neuronpedia_id": "tiny-gpt2/2-res-x",
        },
        **config,
    }
    (path / "cfg.json").write_text(json.dumps(written))
    return path


def sparsify_folder(path: Path, tensors: dict[str, Tensor] | None = None, **config: Any) -> Path:
    """As version 1 writes it; the last part of the path is the module's."""
    held = weights() if tensors is None else tensors
    path.mkdir(parents=True, exist_ok=True)
    named = {
        "encoder.weight": held["W_enc"].T.contiguous(),
        "encoder.bias": held["b_enc"],
        "W_dec": held["W_dec"].contiguous(),
        "b_dec": held["b_dec"],
    }
    save_file(named, path / "sae.safetensors")
    written = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": held["W_enc"].shape[1],
        "k": 4,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": held["W_enc"].shape[0],
        **config,
    }
    (path / "cfg.json").write_text(json.dumps(written))
    return path
