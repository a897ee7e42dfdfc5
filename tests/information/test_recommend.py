"""The rule of recommendation, on estimates made up for the purpose."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from polycode_plugins.information.recommend import (
    Choice,
    Setting,
    interval,
    recommend,
    remarks,
    unproven,
)
from polycode_plugins.information.samples import Estimate

SETTING = Setting(n_samples=4000, x_width=3, y_width=3, counted=False)
NOTHING = {"gaussian": Estimate(0.001, 0.001), "mine": Estimate(-0.004, 0.003)}


def test_the_largest_does_not_win_where_nobody_sees_anything() -> None:
    found = NOTHING | {"ksg": Estimate(0.025, 0.01)}
    assert recommend(found, SETTING).name == "gaussian"
    found = NOTHING | {"ksg": Estimate(0.025, 0.01), "infonce": Estimate(0.004, 0.003)}
    assert recommend(found, SETTING).name == "gaussian"


def test_neighbours_that_see_something_alone_have_to_prove_it() -> None:
    found = NOTHING | {"ksg": Estimate(0.2, 0.01)}
    assert unproven(found, SETTING)
    chance = NOTHING | {"ksg": Estimate(0.01, 0.012, chance=0.19)}
    assert not unproven(chance, SETTING)
    assert recommend(chance, SETTING).name == "gaussian"
    real = NOTHING | {"ksg": Estimate(0.2, 0.012, chance=0.0)}
    assert recommend(real, SETTING).name == "ksg"
    # A second witness is proof enough.
    assert not unproven(found | {"mine": Estimate(0.15, 0.01, gain=0.15)}, SETTING)
    assert not unproven(found | {"ksg": Estimate(0.02, 0.01)}, SETTING)


def test_the_largest_of_those_that_err_downwards() -> None:
    found = {
        "gaussian": Estimate(0.0, 0.001),
        "ksg": Estimate(0.18, 0.01),
        "mine": Estimate(0.27, 0.01, gain=0.27, gain_error=0.01),
        "smile": Estimate(0.4, 0.01),
    }
    choice = recommend(found, SETTING)
    assert choice == Choice("mine", out_of=2)
    assert recommend(found, replace(SETTING, counted=True)).name == "ksg"


def test_a_gaussian_that_its_own_critic_does_not_bear_out() -> None:
    found = {"gaussian": Estimate(0.39, 0.015), "ksg": Estimate(0.34, 0.015, chance=0.0)}
    assert recommend(found, SETTING).name == "gaussian"
    low = replace(SETTING, held_out=Estimate(0.28, 0.02))
    assert recommend(found, low).name == "ksg"
    high = replace(SETTING, held_out=Estimate(0.37, 0.02))
    assert recommend(found, high).name == "gaussian"


def test_intervals() -> None:
    found = Estimate(0.5, 0.1)
    one = interval(found, Choice("ksg"), math.inf)
    assert one == pytest.approx((0.304, 0.696), abs=1e-3)
    three = interval(found, Choice("ksg", out_of=3), math.inf)  # two-sided 1 - .05 / 3
    assert three == pytest.approx((0.5 - 0.2394, 0.5 + 0.2394), abs=1e-3)
    slack = interval(replace(found, slack=(0.2, 0.05)), Choice("ksg"), 0.7)
    assert slack == pytest.approx((0.104, 0.7), abs=1e-3)
    # A value below 0 by chance does not make the high end any surer.
    below = interval(Estimate(-0.3, 0.1), Choice("ksg"), math.inf)
    assert below == pytest.approx((0.0, 0.196), abs=1e-3)


def test_disagreement_is_said_near_zero_too() -> None:
    found = NOTHING | {"ksg": Estimate(0.06, 0.008, chance=0.0)}
    said = remarks(found, "ksg", SETTING)
    assert any("disagree" in s and "0.060" in s for s in said)
    # .03 apart is chance at such errors, and .015 apart is nothing to speak of.
    assert not remarks(NOTHING | {"ksg": Estimate(0.03, 0.02)}, "gaussian", SETTING)
    assert not remarks(NOTHING | {"ksg": Estimate(0.015, 0.001)}, "gaussian", SETTING)
