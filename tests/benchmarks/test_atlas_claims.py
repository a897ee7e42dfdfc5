"""Claims of the atlas on planted numbers: each is borne out once, and refuted once."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from benchmarks.atlas import claims
from benchmarks.atlas.networks import RESIDUAL, named
from polycode_plugins.experiments.claims import CannotJudge, Verdict, judge

NETWORKS = (named("smollm2"), named("minilm"))
STEPS = (0, 10, 100, 200, 400, 800)


def sites(exponent, error=0.01, *, without=50.0, half_share=0.0005) -> pd.DataFrame:
    """Blocks whose exponent is a function of relative depth; rows rule at every one."""
    rows = []
    for network in NETWORKS:
        for block in range(network.blocks):
            depth = block / (network.blocks - 1)
            value = exponent(depth)
            rows.append(
                {
                    "network": network.name,
                    "kind": RESIDUAL,
                    "block": block,
                    "depth": depth,
                    "exponent": value,
                    "exponent_low": value - error,
                    "exponent_high": value + error,
                    "rules": True,
                    "half_share": half_share,
                    "participation": 2.0,
                    "participation_without": without,
                }
            )
    return pd.DataFrame(rows)


def bases(factor: float, more: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "network": network.name,
            "group": group,
            "block": block,
            "kurtosis": factor * 5 * (1 + 0.01 * group),
            "kurtosis_rotated": 5.0,
            "sparseness": 0.4 + more + 0.001 * group,
            "sparseness_rotated": 0.4,
        }
        for network in NETWORKS
        for group in range(5)
        for block in range(3)
    )


def shuffled(step: float) -> pd.DataFrame:
    row = {"block": 0}
    for column in ("exponent", "effective_rank"):
        for name, at in (("trained", 1.0), ("shuffled", 1.0 + step)):
            row |= {f"{column}_{name}_low": at - 0.1, f"{column}_{name}_high": at + 0.1}
    return pd.DataFrame([row | {"block": block} for block in range(30)])


def checkpoints(ranks, sign: float = -1.0) -> pd.DataFrame:
    """Effective ranks by step; exponents that go against them (-1) or with them."""
    rows = [
        {
            "step": step,
            "group": group,
            "effective_rank": rank * (1 + 0.002 * group * (i % 2)),
            "exponent": 1 + sign * 0.01 * rank,
        }
        for group in range(5)
        for i, (step, rank) in enumerate(zip(STEPS, ranks, strict=True))
    ]
    return pd.DataFrame(rows)


def widths(soft, hard) -> pd.DataFrame:
    rows = [
        {
            "inner": inner,
            "network": network,
            "block": block,
            "soft": soft(inner) * (1 + 0.01 * network),
            "hard": hard(inner) * (1 + 0.01 * network),
        }
        for inner in (64, 128, 256, 512)
        for network in range(3)
        for block in range(2)
    ]
    return pd.DataFrame(rows)


BORNE_OUT = {
    "sites": sites(lambda depth: 1.08 - 0.16 * depth),
    "bases": bases(1.0, 0.0),
    "shuffled": shuffled(1.0),
    "checkpoints": checkpoints((60, 10, 20, 40, 80, 50)),
    "widths": widths(lambda w: w**0.8, lambda w: w**0.4),
}
REFUTING = (
    {
        "sites": sites(lambda _: 2.0, without=2.1, half_share=0.02),
        "bases": bases(8.0, 0.3),
        "shuffled": shuffled(0.0),
        "checkpoints": checkpoints((60, 60.1, 61, 61.5, 62, 62.5), sign=1.0),
        "widths": widths(lambda w: 3.0 + (w in (128, 512)), lambda w: w**1.2),
    },
    {
        # Down and up again: no way with depth, and a range of ranks that is highest at first.
        "sites": sites(lambda depth: 2 + abs(depth - 0.5), error=1e-6),
        "checkpoints": checkpoints((60, 59.5, 59.4, 59.3, 59.2, 59.1)),
    },
)


def outcomes(numbers) -> dict[str, Verdict]:
    found = judge(claims.claims(NETWORKS), numbers)
    assert len({v.claim.text for v in found}) == len(found)
    return {v.claim.text: v for v in found}


def test_every_claim_is_borne_out_by_numbers_planted_so():
    for text, verdict in outcomes(BORNE_OUT).items():
        assert verdict.outcome == "holds", (text, verdict.measured, verdict.reason)


def test_every_claim_is_refuted_by_numbers_planted_so():
    worlds = [outcomes(world) for world in REFUTING]
    for text in worlds[0]:
        found = [world[text] for world in worlds]
        assert any(v.outcome == "does not hold" for v in found), (
            text,
            [(v.measured, v.reason) for v in found],
        )


def test_nothing_is_judged_without_numbers():
    for verdict in outcomes({}).values():
        assert verdict.outcome == "cannot be judged at this scale"
        assert verdict.reason


def test_blocks_without_intervals_do_not_count():
    rows = BORNE_OUT["sites"].copy()
    rows.loc[rows["block"] > 1, ["exponent_low", "exponent_high"]] = math.nan
    with pytest.raises(CannotJudge, match="no interval"):
        claims.middle_exponent({"sites": rows}, network="smollm2")


def test_the_middle_is_the_middle_third():
    rows = sites(lambda depth: 1.0 if 1 / 3 <= depth <= 2 / 3 else 5.0)
    effect = claims.middle_exponent({"sites": rows}, network="smollm2")
    assert (effect.value, effect.low, effect.high) == pytest.approx((1.0, 0.99, 1.01))


def test_heterogeneity_is_that_of_the_planted_variance():
    # Half of the variance between exponents is that of their errors: I squared is 1/2.
    rng, error, found = np.random.default_rng(0), 0.1, []
    rows = sites(lambda _: 1.0, error=1.96 * error)
    for _ in range(300):
        drawn = rows.assign(exponent=1 + math.sqrt(2) * error * rng.standard_normal(len(rows)))
        drawn["exponent_low"] = drawn["exponent"] - 1.96 * error
        drawn["exponent_high"] = drawn["exponent"] + 1.96 * error
        found.append(claims.depth_heterogeneity({"sites": drawn}, network="smollm2"))
    assert np.median([effect.value for effect in found]) == pytest.approx(0.5, abs=0.04)
    covered = np.mean([effect.low <= 0.5 <= effect.high for effect in found])
    assert 0.9 <= covered <= 0.99


def test_a_law_of_widths_has_its_slope():
    numbers = {"widths": widths(lambda w: 3 * w**0.7, lambda w: w**0.3)}
    assert claims.width_slope(numbers, "soft").value == pytest.approx(0.7)
    assert claims.width_slope(numbers, "soft", fit=True).value == pytest.approx(1.0)


def test_claims_can_be_written_down():
    for claim in claims.claims(NETWORKS):
        fields = dataclasses.asdict(claim)
        assert all(fields[name] for name in ("text", "source", "statistic"))
