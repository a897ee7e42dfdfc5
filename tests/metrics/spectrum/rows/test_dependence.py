"""What is taken for dependence of rows, and what for chance."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.metrics.spectrum.rows.dependence import Groups, dependence

GROUPS, SIZE, SAMPLES = 32, 12, 10_000.0


def planted(surplus: float) -> Groups:
    """Groups whose scatter matrices are so many standard errors of chance more than those of
    independent rows."""
    square = 1 + surplus * np.sqrt(4 / (SIZE * (SIZE - 1) * GROUPS))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (GROUPS, SIZE, SIZE))
    apart = np.tril(signs, -1) + np.tril(signs, -1).swapaxes(1, 2)
    rest = 1 - 1 / (GROUPS / 2)
    return Groups(
        counts=np.full(GROUPS, SAMPLES),
        rest=np.full(GROUPS, rest),
        apart=apart * np.sqrt(square * SAMPLES / rest),
        sums=np.zeros((GROUPS, SIZE)),
        directions=np.stack([np.eye(SIZE)] * 2),
    )


@pytest.mark.parametrize(("surplus", "dependent"), [(2.5, False), (3.5, True)])
def test_rows_are_dependent_from_three_standard_errors_on(surplus, dependent):
    found = dependence(planted(surplus), None, None)
    assert found.square == pytest.approx(1 + surplus * np.sqrt(4 / (12 * 11 * 32)), rel=1e-3)
    assert found.correlation.independent is not dependent
