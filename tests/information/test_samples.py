"""What is noticed about arrays before any estimator runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from polycode_plugins.errors import DataError
from polycode_plugins.information import estimate
from polycode_plugins.information.samples import copies, heavy_tailed, read, repeated

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


@pytest.mark.parametrize(("values", "few"), [(20, True), (100, True), (101, False), (200, False)])
def test_few_values_are_numbered(values: int, few: bool) -> None:
    x = np.random.default_rng(1).integers(values, size=1000) / 7.0
    codes = read(x, "x").codes
    assert (codes is not None) == few
    if codes is not None:
        assert np.array_equal(codes, np.unique(x, return_inverse=True)[1])


@pytest.mark.parametrize(
    ("law", "heavy"),
    [
        (stats.norm(), False),
        (stats.laplace(), False),
        (stats.t(3), True),
        (stats.cauchy(), True),
    ],
)
def test_tails_are_heavy_from_student_s_third_on(law: stats.rv_frozen, heavy: bool) -> None:
    exact = law.ppf((np.arange(20_000) + 0.5) / 20_000)
    assert heavy_tailed(np.stack([np.linspace(0, 1, 20_000), 1e3 + exact], axis=1)) is heavy


def test_a_coordinate_with_half_its_mass_in_one_atom_has_no_tails() -> None:
    silent = np.where(np.arange(1000) < 990, 0.0, 1e3 * np.arange(1000))
    assert not heavy_tailed(silent[:, None])


def test_the_share_of_values_that_come_again() -> None:
    alone = np.arange(100.0)
    assert repeated(alone[:, None]) == 0
    pairs = np.where(alone < 6, alone // 2, alone)  # three pairs
    assert repeated(np.stack([alone, pairs], axis=1)) == pytest.approx(0.06)


def test_fewer_than_thirty_two_samples_are_refused() -> None:
    assert read(np.arange(32.0), "x").width == 1
    with pytest.raises(DataError, match="31 samples"):
        read(np.arange(31.0), "x")
