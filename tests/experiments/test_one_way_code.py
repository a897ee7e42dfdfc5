"""The arithmetic is exact, decoders are judged by what they read, and planted effects are seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from verdicts import outcome, verdict

from polycode_plugins.experiments import one_way_code as module
from polycode_plugins.experiments.discrete_log import digits, group

SETTINGS = module.EXPERIMENT.settings["smoke"]


def tables(skill=0.0, control=0.95, leak=0.0, seen=1.0, unseen=0.9, slope=0.5, even=0.5):
    generator = np.random.default_rng(0)
    bits = (10, 12, 16, 20)
    forward = [
        {"bits": b, "code": code, "exponents": 1000, "correct": round(1000 * share)}
        for b in bits
        for code, share in (("seen", seen), ("unseen", unseen))
    ]
    decoders = [
        {
            "bits": b,
            "prime": 2**b,
            "exponents": 100,
            "code": code,
            "fold": fold,
            "skill": value + generator.normal(0, 0.005),
        }
        for b in bits
        for fold in range(4)
        for code, value in (("one-way", skill), ("two-way", control), ("hidden layer", leak))
    ]
    exact = pd.DataFrame({"bits": bits, "prime": 2 ** np.array(bits), "logarithms": 50})
    exact["correct"] = 50
    noise = generator.normal(0, 0.02, len(bits))
    exact["multiplications"] = 2 ** (1 + slope * exact["bits"] + noise)
    exact["even_correct"] = round(50 * even)
    return {
        "forward": pd.DataFrame(forward), "decoders": pd.DataFrame(decoders), "exact": exact
    }  # fmt: skip


def test_a_one_way_code_is_recognised_and_another_is_not():
    # A little above half: the last bit of few exponents is not told from a half with certainty.
    one_way = tables(even=0.4)
    for claim in module.EXPERIMENT.claims:
        assert outcome(module.EXPERIMENT, one_way, claim.text) == "holds", claim.text
    other = tables(skill=0.3, control=0.1, leak=0.9, seen=0.5, unseen=0.01, slope=0.1, even=1.0)
    other["exact"]["correct"] = 10
    for claim in module.EXPERIMENT.claims:
        assert outcome(module.EXPERIMENT, other, claim.text) == "does not hold", claim.text


def test_small_primes_alone_are_not_judged():
    numbers = tables()
    numbers["decoders"] = numbers["decoders"].assign(exponents=2**20 // 4)
    found = verdict(module.EXPERIMENT, numbers, "fail where p is large")
    assert found.outcome == "cannot be judged at this scale"
    assert "saw most exponents" in found.reason


def test_decoders_read_what_can_be_read_and_nothing_else(tmp_path):
    numbers = module.run(SETTINGS, 0, tmp_path)
    skill = numbers["decoders"].groupby(["bits", "code"])["skill"].mean()
    assert skill[10, "two-way"] > 0.5
    assert abs(skill[10, "one-way"]) < 0.15
    assert skill[6, "hidden layer"] > 0.5
    forward = numbers["forward"].set_index("code")
    share = forward["correct"] / forward["exponents"]
    assert forward.loc["seen", "exponents"] == 58
    assert share["seen"] > 0.85
    assert share["unseen"] < 0.3
    exact = numbers["exact"]
    assert (exact["correct"] == exact["logarithms"]).all()
    assert (exact["even_correct"] == exact["logarithms"]).all()
    assert module.figure(numbers).axes


def test_guessing_knows_how_frequent_digits_are():
    for bits in (5, 9):
        g = group(bits)
        share = digits(np.arange(1, g.prime), g.bits).mean(0)
        assert g.guessing() == pytest.approx(np.maximum(share, 1 - share).mean(), abs=1e-6)
