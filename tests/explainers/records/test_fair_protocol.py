"""Texts by quantile and hard negatives beside the top and random ones."""

from __future__ import annotations

import numpy as np
import torch
from planted import Words
from torch import nn

import polycode_plugins as pc
from polycode_plugins.explainers.base import FIRES

MEANT, LIKE = 0, 1


class Bank(nn.Module):
    """Neuron 0 is 5 on word 0, but only after word 1; neuron 1 on word 0 wherever it is."""

    def __init__(self):
        super().__init__()
        self.read = nn.Identity()

    def forward(self, tokens):
        before = torch.roll(tokens, 1, dims=1)
        here, noise = (tokens == MEANT).float(), 0.01 * tokens.float()
        return self.read(torch.stack([5 * here * (before == LIKE) + noise, 5 * here + noise], -1))


def texts():
    g = torch.Generator().manual_seed(0)
    made = torch.randint(2, 60, (400, 12), generator=g)
    for i in range(400):
        if i % 3 == 0:
            made[i, 5] = MEANT
        if i % 6 == 0:
            made[i, 4] = LIKE
    return made


def test_hard_negatives_hold_the_units_words_and_do_not_make_it_fire():
    compared = pc.compare(
        Bank(), texts(), "read", units="neuron", n_units=2, tokenizer=Words(), protocol="fair"
    )
    bank, plain = (u.evaluation.records for u in compared)
    for records in (bank, plain):
        assert len(records.explain.quantile) == len(records.score.quantile) == 5
        heights = [r.activations.max() for r in records.score.quantile]
        assert heights == sorted(heights)
        for r in records.score.negative:
            assert records.levels(r).max() < FIRES
    # What merely looks like its texts: its word after another.
    assert all(" word0" in r.tokens for r in bank.score.negative)
    assert len(bank.score.negative) == 5
    # A unit that goes by the word alone has no such text.
    assert not any(" word0" in r.tokens for r in plain.score.negative)
    # A look-up of tokens is believed for the one and caught at the other.
    values = [u.score("detection") for u in compared]
    assert values[1] == 1.0
    assert values[0] < 0.85
    documents = [
        r.document for part in (bank.explain, bank.calibration, bank.score) for r in part.all()
    ]
    assert len(set(documents)) == len(documents)
    assert np.mean([len(p.all()) for p in (bank.explain, bank.score)]) == 15
