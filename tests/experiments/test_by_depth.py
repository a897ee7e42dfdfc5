"""Statistics over depth: a planted effect is found with its size, and noise is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from polycode_plugins.experiments import by_depth
from polycode_plugins.experiments.claims import CannotJudge


def table(profile: np.ndarray, noise: float, networks: int = 4, seed: int = 0) -> pd.DataFrame:
    drawn = np.random.default_rng(seed).normal(0, noise, (networks, len(profile)))
    return pd.DataFrame(
        [
            {"network": n, "depth": d, "x": float(d), "y": profile[d] + drawn[n, d]}
            for n in range(networks)
            for d in range(len(profile))
        ]
    )


def test_the_share_of_depth_is_the_planted_one():
    shares, covered = [], 0
    generator = np.random.default_rng(0)
    for seed in range(200):
        profile = generator.normal(0, np.sqrt(0.7), 11)
        found = by_depth.depth_share(table(profile, np.sqrt(0.3), seed=seed), "y")
        shares.append(found.value)
        covered += found.low <= 0.7 <= found.high
    assert np.mean(shares) == pytest.approx(0.68, abs=0.03)
    assert 0.91 < covered / 200 < 0.98


def test_no_effect_of_depth_is_none():
    shares = [by_depth.depth_share(table(np.zeros(11), 1.0, seed=s), "y") for s in range(100)]
    assert np.mean([s.value for s in shares]) == pytest.approx(0, abs=0.03)
    assert np.mean([s.low > 0 for s in shares]) < 0.06
    assert by_depth.depth_share(table(np.arange(5.0), 0.0), "y").value == 1
    with pytest.raises(CannotJudge, match="same everywhere"):
        by_depth.depth_share(table(np.zeros(5), 0.0), "y")
    with pytest.raises(CannotJudge, match="several units"):
        by_depth.depth_share(table(np.arange(5.0), 1.0, networks=1), "y")


def test_rank_correlations_and_halves():
    rising = table(np.arange(11.0), 0.5)
    found = by_depth.mean_rank_correlation(rising, "x", "y")
    assert found.low > 0.9
    later = by_depth.later_less_earlier(rising, "y")
    assert later.value == pytest.approx(8 - 2.5, abs=0.5)
    assert by_depth.later_mean(rising, "y").value == pytest.approx(8, abs=0.4)
    flat = by_depth.later_less_earlier(table(np.zeros(11), 0.5), "y")
    assert flat.low < 0 < flat.high
    with pytest.raises(CannotJudge, match="5 depths"):
        by_depth.mean_rank_correlation(table(np.arange(3.0), 0.1), "x", "y")


def test_a_spectrum_is_thinned_for_drawing():
    ranks = by_depth.shown_ranks(5000)
    assert ranks[0] == 1
    assert ranks[-1] == 5000
    assert len(ranks) <= 60
    assert by_depth.shown_ranks(7).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_layers_have_the_numbers_of_their_sites():
    def numbers(*sites: str) -> dict[int, int]:
        rows = [{"depth": depth, "site": site} for depth, site in enumerate(sites)]
        return by_depth.layer_numbers(pd.DataFrame(rows + rows))

    assert numbers("blocks.0.mlp", "blocks.5.mlp", "blocks.10.mlp") == {0: 1, 1: 6, 2: 11}
    assert numbers("embed", "body") == {0: 1, 1: 2}  # no numbers
    assert numbers("blocks.3.a", "blocks.3.b") == {0: 1, 1: 2}  # one number for two sites
    assert numbers("embed", "blocks.0") == {0: 1, 1: 2}
