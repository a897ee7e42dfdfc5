"""Records of units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from one_pass_records import collect
from planted import NEURONS, Reader, planted_texts

from polycode_plugins.explainers.records.protocols import OPENAI
from polycode_plugins.explainers.records.unit_records import records_of, shape_of
from polycode_plugins.explainers.units.directions import directions


def test_every_record_is_what_the_model_does_there():
    (collector,), texts, strings = collect(16)
    tokens, table = planted_texts(), Reader().read.weight.detach().numpy()
    for unit, (records, _) in enumerate(records_of(collector, texts, strings, OPENAI)):
        assert records.sign == 1
        for record in records.explain.all() + records.calibration.all() + records.score.all():
            ids = tokens[record.row].tolist()
            assert record.tokens == tuple(f" word{i}" for i in ids)
            assert record.activations == pytest.approx(table[ids, unit])


def test_the_sign_is_fixed_by_explaining_records_and_both_signs_can_be_had():
    flipped = lambda width: directions(-torch.eye(width))  # noqa: E731
    (collector,), texts, strings = collect(16, flipped, signs="fixed")
    for records, _ in records_of(collector, texts, strings, OPENAI, signs="fixed"):
        assert records.sign == -1
        assert records.maximum == 5.0
    both = list(records_of(collector, texts, strings, OPENAI, signs="both"))
    assert [r.sign for r, _ in both] == [1, -1] * NEURONS
    assert len({r.unit for r, _ in both}) == 2 * NEURONS


def test_moments_are_those_of_the_activations():
    rng = np.random.default_rng(0)
    shape = shape_of(rng.normal(2, 3, 200_000).astype(np.float32), 10.0)
    assert shape.kurtosis == pytest.approx(3, abs=0.05)
    assert (shape.mean, shape.sd) == pytest.approx((2, 3), abs=0.02)
    assert shape_of(np.ones(5, dtype=np.float32), 1.0).kurtosis is None
