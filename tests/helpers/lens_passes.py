"""Passes of models of TransformerLens, by the adapter and by the library itself."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from tiny_models import LAYERS
from torch import Tensor

from polycode_plugins.adapters.base import DataOptions
from polycode_plugins.adapters.transformer_lens.adapter import TransformerLensAdapter

BLOCKS = [f"blocks.{i}.hook_resid_post" for i in range(LAYERS)]
TOKENS = torch.arange(1, 1 + 3 * 7).reshape(3, 7)


def cached(model: Any, tokens: Tensor, **options: Any) -> dict[str, Tensor]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which gated hook points are skipped
        return dict(model.run_with_cache(tokens, return_cache_object=False, **options)[1])


def first(adapter: TransformerLensAdapter, data: Any, sites: Any = None, **options: Any) -> Any:
    return next(iter(adapter.stream(data, sites, options=DataOptions(**options))))
