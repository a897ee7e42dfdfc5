"""The arithmetic is exact, decoders are judged by what they read, and planted effects are seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from verdicts import outcome, verdict

from polycode_plugins.errors import DataError
from polycode_plugins.experiments import one_way_code as module
from polycode_plugins.experiments.digit_networks import fit, held_out
from polycode_plugins.experiments.discrete_log import Group, digits, group, is_prime

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


@pytest.mark.parametrize("bits", [5, 9, 16, 31])
def test_groups_are_safe_and_their_powers_exact(bits):
    g = group(bits)
    assert g.bits == bits
    assert is_prime(g.prime)
    assert is_prime((g.prime - 1) // 2)
    x = np.random.default_rng(0).integers(1, g.prime, 50)
    y = g.power(x)
    assert y.tolist() == [pow(g.root, int(e), g.prime) for e in x]
    assert ((x % 2 == 0) == g.is_square(y)).all()
    if bits < 20:
        assert [g.logarithm(int(v))[0] for v in y] == x.tolist()


def test_every_residue_has_its_logarithm():
    g = group(7)
    every = np.arange(1, g.prime)
    assert sorted(g.power(every).tolist()) == every.tolist()
    found = [g.logarithm(int(v)) for v in g.power(every)]
    assert [x for x, _ in found] == every.tolist()
    assert max(steps for _, steps in found) < 2 * g.prime**0.5 + 3
    with pytest.raises(DataError, match="between 1 and"):
        g.logarithm(0)
    with pytest.raises(DataError, match="3 to 31"):
        group(40)
    assert Group(23, 5).power(np.array([22])).tolist() == [1]


def test_digits_are_the_number_again():
    numbers = np.array([0, 5, 1023])
    assert (digits(numbers, 10) @ 2 ** np.arange(10)).tolist() == numbers.tolist()


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


def test_the_same_seed_trains_the_same_network():
    x = torch.rand(2, 30, 4)
    first, again, other = (
        fit(x, (x > 0.5).float(), width=16, batch=16, steps=50, rate=1e-2, seed=seed)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))


def test_held_out_digits_are_told_where_they_can_be():
    generator = np.random.default_rng(0)
    y = (generator.random((400, 3)) < [0.5, 0.5, 0.9]).astype(np.float32)
    x = np.stack([3 * y[:, 0] + 1, generator.normal(size=400), np.zeros(400)], axis=1)
    told = held_out(x.astype(np.float32), y, width=16, batch=64, steps=200, rate=1e-2, seed=0)
    assert told.shape == (4, 100, 3)
    share = told.float().mean((0, 1)).tolist()
    assert share[0] == 1
    assert share[1] == pytest.approx(0.5, abs=0.1)


def test_guessing_knows_how_frequent_digits_are():
    for bits in (5, 9):
        g = group(bits)
        share = digits(np.arange(1, g.prime), g.bits).mean(0)
        assert g.guessing() == pytest.approx(np.maximum(share, 1 - share).mean(), abs=1e-6)
