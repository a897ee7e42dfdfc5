"""Top texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polycode_plugins.explainers.records.top_texts import TopTexts


def stream(
    batch: int, *, ties: bool = False, waiting: int = 0
) -> tuple[TopTexts, torch.Tensor, torch.Tensor]:
    """Forty texts of a dozen documents through TopTexts, in batches; the values and documents."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(40, 6, 7, generator=generator)
    if ties:
        values = values.round()
    documents = torch.sort(torch.randint(0, 12, (40,), generator=generator)).values
    top = TopTexts(7, 4, torch.device("cpu"))
    for i in range(0, 40, batch):
        part = values[i : i + batch]
        rows = torch.arange(i, i + len(part))
        read = part.movedim(-1, 0).contiguous()
        for first in (0, 3):  # three units and then the other four
            some = read[first : first + 3 + first // 3]
            top.look(first, some.amax(dim=2), some, rows, documents[i : i + batch])
        top.settle(at_least=waiting)
    top.settle()
    return top, values, documents


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("waiting", [0, 30, 1000])
@pytest.mark.parametrize("batch", [1, 3, 16, 40])
def test_top_texts_equal_brute_force_for_any_batch_size(batch, waiting, ties):
    top, values, documents = stream(batch, ties=ties, waiting=waiting)
    order = top.ranked()
    for unit in range(7):
        best: dict[int, tuple[float, int]] = {}
        for row in range(40):
            found = (float(values[row, :, unit].max()), -row)
            document = int(documents[row])
            best[document] = max(best.get(document, (-np.inf, 0)), found)
        expected = sorted(best.values(), reverse=True)[:4]
        slots = order[unit]
        assert top.values[unit, slots].tolist() == [v for v, _ in expected]
        assert top.rows[unit, slots].tolist() == [-row for _, row in expected]
        for slot, (_, row) in zip(slots, expected, strict=True):
            assert torch.equal(top.activations[unit, slot], values[-row, :, unit])
            assert top.documents[unit, slot] == documents[-row]


def test_fewer_documents_than_places_leave_places_empty():
    top = TopTexts(2, 5, torch.device("cpu"))
    values = torch.arange(12.0).reshape(2, 2, 3)
    top.look(0, values.amax(dim=2), values, torch.tensor([0, 1]), torch.tensor([7, 7]))
    assert torch.isfinite(top.values).sum(dim=1).tolist() == [1, 1]
    assert top.rows[0, top.ranked()[0, 0]] == 1
