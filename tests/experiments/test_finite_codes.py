"""Codes of finite length, decoded."""

from __future__ import annotations

import numpy as np

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
