"""Records of units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from one_pass_records import collect
from planted import NEURONS, Reader, planted_texts
from scipy.stats import kurtosis

from polycode_plugins.explainers.records.protocols import OPENAI
from polycode_plugins.explainers.records.unit_records import records_of
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


def test_the_shape_of_a_unit_is_taken_over_every_text():
    (collector,), texts, strings = collect(16)
    tokens, table = planted_texts(), Reader().read.weight.detach().numpy().astype(np.float64)
    for unit, (records, shape) in enumerate(records_of(collector, texts, strings, OPENAI)):
        true = table[tokens.flatten().numpy(), unit]
        assert shape.n_tokens == len(true)
        assert shape.kurtosis == pytest.approx(kurtosis(true, fisher=False), rel=1e-4)
        assert (shape.mean, shape.sd) == pytest.approx((true.mean(), true.std()), rel=1e-4)
        pooled = collector.pool.stacked()[0][:, unit].numpy()
        assert shape.sparsity == np.mean(pooled * 10 < records.maximum)
