"""Levels and directions."""

from __future__ import annotations

import numpy as np
from planted import (
    record,
    unit_of,
)
from planted_scores import made

from polycode_plugins.explainers.base import (
    levels_of,
)


def test_normalisation_is_openais_and_its_maximum_is_of_explaining_records():
    assert levels_of(np.array([-3.0, 0.0, 0.99, 1.0, 5.4, 10.0, 12.0]), 10.0).tolist() == [
        0, 0, 0, 1, 5, 10, 10,
    ]  # fmt: skip
    assert levels_of(np.array([1.0, 2.0]), 0.0).tolist() == [0, 0]
    unit = unit_of(made(1), [record(["x", "y"], [50.0, 0.0], 9)])
    assert unit.maximum == 5.0
    assert unit.levels(unit.score.top[0]).tolist() == [10, 0]
