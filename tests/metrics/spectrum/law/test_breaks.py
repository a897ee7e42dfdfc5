"""Where two laws describe a spectrum better than one, and how often chance says so."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gaussian_spectra import power_law

from polycode_plugins.metrics.spectrum.law.bins import Binned, binned
from polycode_plugins.metrics.spectrum.law.breaks import find_break

WIDTH = 120
DATA = binned(power_law(WIDTH, 1.0), 1, WIDTH, WIDTH)
CENTRES = np.array([np.log(np.arange(a, b)).mean() for a, b in pairwise(DATA.edges)])


def single(residuals: np.ndarray, data: Binned = DATA) -> Any:
    """One law matched where the sample is the population, with noise of one size in all bins."""
    count = len(data.sizes)
    design = np.stack([np.ones(count), CENTRES[:count]], axis=1)
    response = np.zeros((count, WIDTH))
    for row, (a, b) in enumerate(pairwise(data.edges)):
        response[row, a - 1 : b - 1] = 1 / (b - a)
    left = residuals - design @ np.linalg.lstsq(design, residuals, rcond=None)[0]
    return SimpleNamespace(
        freedom=count - 2, whitened=design, whitener=np.eye(count), residuals=left,
        response=response,
    )  # fmt: skip


def test_the_statistic_is_the_f_of_nested_regressions_and_finds_the_planted_break():
    rank = int(DATA.edges[12])
    bent = -0.5 * np.maximum(CENTRES - np.log(rank), 0)
    noise = 0.05 * np.random.default_rng(0).standard_normal(len(CENTRES))
    one = single(bent + noise)
    found = find_break(DATA, one, WIDTH, seed=0)
    best = []
    for at in range(3, len(DATA.sizes) - 2):
        after = np.arange(1, WIDTH + 1) >= DATA.edges[at]
        logs = np.log(np.arange(1, WIDTH + 1)) - np.log(DATA.edges[at])
        more = one.response @ np.stack([after, after * logs], axis=1)
        both = np.column_stack([one.whitened, more])
        rest = one.residuals - both @ np.linalg.lstsq(both, one.residuals, rcond=None)[0]
        before, left = one.residuals @ one.residuals, rest @ rest
        best.append((before - left) / 2 / (left / (len(DATA.sizes) - 4)))
    assert found.statistic == pytest.approx(max(best), rel=1e-6)
    assert found.rank == DATA.edges[3 + int(np.argmax(best))]
    assert abs(int(np.argmax(best)) + 3 - 12) <= 1
    assert found.p_value == 1 / 2000


def test_chance_breaks_a_law_as_often_as_the_p_value_says():
    rng = np.random.default_rng(1)
    p = [
        find_break(DATA, single(rng.standard_normal(len(CENTRES))), WIDTH, seed=s).p_value
        for s in range(30)
    ]
    assert np.mean(p) == pytest.approx(0.5, abs=0.16)
    assert np.mean(np.array(p) < 0.1) < 0.25


def test_no_break_is_looked_for_in_fewer_than_eight_bins():
    for bins, looked in ((8, True), (7, False)):
        data = binned(power_law(WIDTH, 1.0), 1, int(DATA.edges[bins]) - 1, WIDTH)
        few = Binned(
            DATA.edges[: bins + 1], DATA.values[:bins], False, data.nodes, data.rows, data.begins,
            data.cells, data.logs,
        )  # fmt: skip
        assert (
            find_break(few, single(np.arange(bins) ** 2.0, few), WIDTH, 0) is not None
        ) is looked
