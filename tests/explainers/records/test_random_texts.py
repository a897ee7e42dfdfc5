"""Random texts."""

from __future__ import annotations

import numpy as np
import torch

from polycode_plugins.explainers.records.random_texts import RandomTexts


def test_random_texts_do_not_depend_on_the_batch_and_are_of_different_documents():
    values, mask = torch.randn(300, 4, 3), torch.ones(300, 4, dtype=torch.bool)
    rows, documents = torch.arange(300), torch.arange(300) // 5
    found = []
    for batch in (7, 300):
        pool = RandomTexts(20, seed=1)
        for i in range(0, 300, batch):
            part = slice(i, i + batch)
            pool.update(values[part], mask[part], rows[part], documents[part])
        found.append(pool.rows)
        assert len(set(pool.documents)) == 20
    assert found[0] == found[1]
    other = RandomTexts(20, seed=2)
    other.update(values, mask, rows, documents)
    assert other.rows != found[0]


def test_random_texts_are_drawn_evenly():
    values, mask = torch.zeros(100, 1, 1), torch.ones(100, 1, dtype=torch.bool)
    rows, counts = torch.arange(100), np.zeros(100)
    for seed in range(400):
        pool = RandomTexts(10, seed)
        pool.update(values, mask, rows, rows)
        counts[pool.rows] += 1
    assert abs(counts.mean() - 40) < 1e-9
    assert counts.std() < 1.35 * np.sqrt(400 * 0.1 * 0.9)  # binomial
    assert abs(np.corrcoef(counts, np.arange(100))[0, 1]) < 0.3
