"""Curves of dimensions per feature over sparsity."""

from __future__ import annotations

import numpy as np
import pandas as pd

from polycode_plugins import theory

P = 20.0 ** (-np.arange(58) / 57)


def curve(ratio: np.ndarray, noise: float = 0.01, seed: int = 0) -> dict[str, pd.DataFrame]:
    drawn = np.random.default_rng(seed).normal(0, noise, len(P))
    frame = pd.DataFrame(
        {
            "probability": P,
            "dimensions_per_feature": ratio * np.exp(drawn),
            "optimal": theory.dimensions_per_feature(1 - P, 24.0),
            "element_bits": 24.0,
        }
    )
    return {"curve": frame}
