"""Paths."""

from __future__ import annotations

import numpy as np


def path(time=40, width=12, seed=0):
    return np.random.default_rng(seed).standard_normal((time, width)).cumsum(axis=0)
