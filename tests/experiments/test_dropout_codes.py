"""Codes are decoded exactly, and each claim follows what the messages did."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from verdicts import outcome

from polycode_plugins.experiments import dropout_codes as module
from polycode_plugins.experiments.finite_codes import decode, random_code, reliable_symbols, send

PRIME = 17


def test_decoding_agrees_with_trying_every_message():
    generator = np.random.default_rng(0)
    every = np.array([[a, b] for a in range(PRIME) for b in range(PRIME)])
    for _ in range(20):
        code = generator.integers(0, PRIME, (3, 2))
        message = generator.integers(1, PRIME, (1, 2))
        arrived = send(code, message, 0.4, PRIME, generator)
        found, known = decode(code, arrived, PRIME)
        heard = arrived[0] != 0
        fitting = every[((every @ code.T % PRIME == arrived[0]) | ~heard).all(axis=1)]
        for symbol in range(2):
            unique = len(set(fitting[:, symbol])) == 1
            assert known[0, symbol] == unique
            if unique:
                assert found[0, symbol] == message[0, symbol]


def test_a_redundant_code_recovers_what_a_full_one_loses():
    generator = np.random.default_rng(1)
    symbols = reliable_symbols(40, 0.25, 257, 0.01)
    assert 18 <= symbols <= 24
    for count, whole in ((symbols, 0.95), (40, 0.0)):
        code = random_code(40, count, 257, generator)
        messages = generator.integers(1, 257, (100, count))
        found, known = decode(code, send(code, messages, 0.25, 257, generator), 257)
        share = (known & (found == messages)).all(axis=1).mean()
        assert share >= whole if whole else share == 0


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    settings = dataclasses.replace(
        module.EXPERIMENT.settings["smoke"], sizes=(16, 32, 64), rates=(0.0, 0.3), messages=80
    )
    return module.run(settings, 0, tmp_path_factory.mktemp("states"))


def test_codes_carry_what_theory_says(numbers):
    codes = numbers["codes"]
    sent = codes[codes["symbols"] > 0]
    error = (sent["bits_received"] - sent["bits_expected"]).abs() / sent["bits_sent"]
    assert error.max() < 0.1
    for words in ("monosemantic code carries", "code without redundancy", "recovers from dropout"):
        assert outcome(module.EXPERIMENT, numbers, words) == "holds"
    assert outcome(module.EXPERIMENT, numbers, "lies between") == "holds"
    assert module.figure(numbers).axes


def test_absent_effects_are_reported_as_absent(numbers):
    codes = numbers["codes"].copy()
    robust = codes.assign(whole=codes["messages"])
    fragile = codes.assign(whole=0, bits_received=codes["bits_received"] / 2)
    for frame, words in (
        (robust, "monosemantic code carries"),
        (robust, "code without redundancy"),
        (fragile, "recovers from dropout"),
        (fragile, "tends to"),
    ):
        changed = {"codes": frame, "bounds": numbers["bounds"]}
        assert outcome(module.EXPERIMENT, changed, words) == "does not hold"
    bounds = numbers["bounds"].assign(lower=lambda t: t["lower"] + 0.5)
    changed = {"codes": codes, "bounds": pd.DataFrame(bounds)}
    assert outcome(module.EXPERIMENT, changed, "lies between") == "does not hold"
