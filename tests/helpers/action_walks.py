"""Rows that move smoothly."""

from __future__ import annotations

import numpy as np


def smooth(time=200, width=512, seed=0):
    """A path that turns slowly through many directions."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(0, 2 * np.pi, time)[:, None] * np.arange(1, 11)
    waves = np.concatenate([np.sin(phase), np.cos(phase)], axis=1) / np.tile(np.arange(1, 11), 2)
    return waves @ rng.standard_normal((20, width))
