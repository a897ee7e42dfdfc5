"""What is noticed about arrays before any estimator runs."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.information import estimate
from polycode_plugins.information.samples import copies, read

FAST = ("gaussian", "ksg")


def test_copies_are_told_from_values_that_repeat_by_nature() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1000, 2))
    assert copies(x, y) == 0
    assert copies(np.repeat(x, 2, axis=0), np.repeat(y, 2, axis=0)) == 1
    assert copies(np.maximum(x, 0), np.maximum(y, 0)) == 0
    assert copies(np.round(x), np.round(y)) < 0.01
    doubled = estimate(np.repeat(x, 2, axis=0), np.repeat(y, 2, axis=0), estimators=FAST)
    assert any("copies" in w for w in doubled.warnings)
    zeros = estimate(np.maximum(x, 0), np.maximum(y, 0), estimators=FAST)
    assert not any("copies" in w for w in zeros.warnings)


@pytest.mark.parametrize(("values", "few"), [(20, True), (200, False)])
def test_few_values_are_numbered(values: int, few: bool) -> None:
    x = np.random.default_rng(1).integers(values, size=1000) / 7.0
    codes = read(x, "x").codes
    assert (codes is not None) == few
    if codes is not None:
        assert np.array_equal(codes, np.unique(x, return_inverse=True)[1])
