"""Intervals of rows that are not Gaussian: how much single rows add is measured, and counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from feature_rows import LAW, WIDTH, features, gathered
from torch import Tensor

import polycode_plugins as pc
from polycode_plugins.metrics.spectrum.effective_dimensions import effective_dimensions
from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample
from polycode_plugins.metrics.spectrum.row_spread import row_spread, spread_of_kept
from polycode_plugins.metrics.spectrum.rows.correlation import INDEPENDENT

RATIO = float(LAW.sum() ** 2 / LAW.square().sum())
ROOTS = LAW.sqrt() / LAW.sqrt().sum()
RANK = float((-(ROOTS * ROOTS.log()).sum()).exp())


def spread(rows: Tensor, batches: int = 1) -> float:
    return spread_of_kept(*gathered(rows, batches), INDEPENDENT)


@pytest.mark.parametrize("n", [30, 60, 300, 3000])
def test_gaussian_rows_add_what_they_are_taken_to_add(n):
    generator = torch.Generator().manual_seed(n)
    found = [spread(features("gaussian", n, generator) * LAW.sqrt()) for _ in range(10)]
    assert found == [1.0] * 10


@pytest.mark.parametrize(
    ("n", "width", "exponent"), [(80, 300, 0.0), (40, 600, 1.0), (900, 300, 0)]
)
def test_wide_and_white_layers_too(n, width, exponent):
    generator = torch.Generator().manual_seed(9)
    scale = torch.arange(1, width + 1, dtype=torch.float64) ** (-exponent / 2)
    rows = torch.randn(6, n, width, generator=generator, dtype=torch.float64) * scale
    assert [spread(one) for one in rows] == [1.0] * 6


@pytest.mark.parametrize(("kind", "batches"), [("laplace", 1), ("silent", 1), ("silent", 13)])
def test_what_independent_features_add_follows_from_their_kurtosis(kind, batches):
    generator = torch.Generator().manual_seed(1)
    many = features(kind, 200_000, generator)[:, :4]
    expected = (float((many - many.mean()).pow(4).mean()) - 1) / 2  # the variance is 1
    found = [spread(features(kind, 3000, generator) * LAW.sqrt() + 5.0, batches) for _ in range(6)]
    assert np.mean(found) == pytest.approx(expected, rel=0.2)


def test_rows_that_are_kept_stand_for_all():
    rows = features("silent", 3000, torch.Generator().manual_seed(2)) * LAW.sqrt()
    covariance, sample = gathered(rows)
    values = covariance.eigenvalues().numpy()
    apart = rows - rows.mean(dim=0)
    everyone = row_spread(covariance, values, apart, torch.ones(3000), square=1.0)
    assert spread_of_kept(covariance, sample, INDEPENDENT) == pytest.approx(everyone, rel=0.25)


def test_heavy_whole_rows_are_seen_too():
    generator = torch.Generator().manual_seed(3)
    scales = 1 + 2 * (torch.rand(3000, 1, generator=generator, dtype=torch.float64) < 0.1).double()
    rows = scales * features("gaussian", 3000, generator) * LAW.sqrt()
    expected = float(scales.pow(4).mean() / scales.square().mean() ** 2)
    assert spread(rows) == pytest.approx(expected, rel=0.3)


def test_correlated_gaussian_rows_add_no_more():
    generator = torch.Generator().manual_seed(4)
    steps = torch.randn(60, 20, WIDTH, generator=generator, dtype=torch.float64)
    for t in range(1, 20):
        steps[:, t] = 0.7 * steps[:, t - 1] + 0.51**0.5 * steps[:, t]
    result = pc.metrics.Spectrum().measure(steps * LAW.sqrt())
    assert result.effective_samples < 700
    assert result.row_spread == 1.0


def covered(kind: str, *, counted: bool) -> tuple[float, float]:
    """Shares of 60 intervals that hold, of the participation ratio and the effective rank."""
    generator = torch.Generator().manual_seed(5)
    held = np.zeros((60, 2))
    for draw in held:
        covariance, sample = gathered(features(kind, 1500, generator) * LAW.sqrt())
        found = effective_dimensions(
            covariance.eigenvalues().numpy(),
            1500,
            width=WIDTH,
            spread=spread_of_kept(covariance, sample, INDEPENDENT) if counted else 1.0,
        )
        for k, (one, truth) in enumerate(
            ((found.participation_ratio, RATIO), (found.effective_rank, RANK))
        ):
            assert one.interval is not None
            draw[k] = one.interval[0] <= truth <= one.interval[1]
    ratio, rank = held.mean(axis=0)
    return float(ratio), float(rank)


def test_intervals_hold_for_features_that_are_mostly_silent():
    assert max(covered("silent", counted=False)) < 0.7
    assert min(covered("silent", counted=True)) >= 0.85
    assert covered("gaussian", counted=True) == covered("gaussian", counted=False)


def test_results_are_wider_for_it_and_say_so():
    rows = features("silent", 600, torch.Generator().manual_seed(6)) * LAW.sqrt()
    plain = features("gaussian", 600, torch.Generator().manual_seed(6)) * LAW.sqrt()
    found, other = (pc.metrics.Spectrum().measure(one) for one in (rows, plain))
    assert found.row_spread > 4
    assert any("single rows add" in said for said in found.warnings)
    assert other.row_spread == 1.0
    assert not any("single rows add" in said for said in other.warnings)
    assert type(found).from_dict(found.to_dict()).row_spread == found.row_spread


@pytest.mark.parametrize("rows", [torch.zeros(5, WIDTH), torch.ones(1, WIDTH).repeat(9, 1)])
def test_rows_that_do_not_vary_add_nothing(rows):
    assert spread(rows.double()) == 1.0


def test_states_that_kept_no_rows_count_as_gaussian():
    covariance, _ = gathered(features("silent", 600, torch.Generator().manual_seed(8)))
    assert spread_of_kept(covariance, PrioritySample("samples"), INDEPENDENT) == 1.0
