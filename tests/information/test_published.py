"""The published estimator, defects and all."""

from __future__ import annotations

import pytest
from gaussian_pairs import gaussian_pair

from polycode_plugins.errors import DataError
from polycode_plugins.information import (
    estimate_as_published,
)


def test_published_mine_is_faithful_in_its_defects() -> None:
    x, y, truth = gaussian_pair([0.9], 4000, 2)
    found = estimate_as_published(x, y, stages=((1e-3, 30, 256), (5e-6, 5, 512)))
    assert len(found.curve) == 35
    assert found.nats == pytest.approx(found.curve[-10:, 2].mean())
    assert abs(found.nats - truth) < 0.15
    with pytest.raises(DataError, match="overflowed"):  # the naive logarithm
        estimate_as_published(1e4 * x, 1e4 * y, stages=((1.0, 5, 256),))
