"""Moments of samples that are gone, against numpy of the samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polycode_plugins.errors import StateError
from polycode_plugins.metrics import moments, triangle
from polycode_plugins.metrics.moments import Moments


def rows(n: int, width: int, seed: int = 0, *, mean: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator, dtype=torch.float64) + mean


def gathered(
    values: torch.Tensor, dtype: torch.dtype = torch.float64, sizes: list[int] | None = None
) -> Moments:
    held = Moments(values.shape[1], values.device)
    for part in values.split(sizes or len(values)):
        held.add([part], dtype)
    return held


def equal(held: Moments, values: torch.Tensor) -> bool:
    assert held.count == len(values)
    assert held.width == values.shape[1]
    assert held.mean.numpy() == pytest.approx(values.mean(0).numpy(), abs=1e-12)
    squares = values.var(0, correction=0) * len(values)
    assert held.squares().numpy() == pytest.approx(squares.numpy(), rel=1e-12)
    exact = np.cov(values.numpy().T)
    return float(np.abs(held.covariance().numpy() - exact).max()) < 1e-12 * float(exact.max())


@pytest.mark.parametrize("width", [3, 300])  # one panel, and several
def test_parts_merged_are_the_whole(width):
    values = rows(400, width, mean=3.0)
    assert equal(gathered(values, sizes=[1, 300, 99]), values)
    held, empty = gathered(values[:100]), Moments(width, values.device)
    held.merge(gathered(values[100:]))
    empty.merge(held)
    assert equal(held, values)
    assert equal(empty, values)
    empty.add([values], torch.float64)  # in memory of its own
    assert equal(held, values)


def test_samples_taken_out_are_as_if_they_had_never_come():
    values = rows(400, 300, mean=3.0)
    held = gathered(values)
    assert equal(held.without(values[:7]), values[7:])
    assert equal(held, values)


def test_a_copy_shares_nothing_and_a_state_is_the_whole():
    values = rows(50, 4, mean=2.0)
    held = gathered(values)
    loaded = Moments.of_state(held.count, held.state())
    copy = held.to(values.device, copy=True)
    held.add([values], torch.float64)
    assert equal(copy, values)
    assert equal(loaded, values)
    with pytest.raises(StateError, match="does not fit a width of 4"):
        Moments.of_state(50, {**held.state(), "scatter": torch.zeros(9)})


def test_products_are_summed_in_float32_over_one_block_at_most(monkeypatch):
    """Which the stated bound of their error is for; both ways."""
    monkeypatch.setattr(moments, "BLOCK_VALUES", 64)
    monkeypatch.setattr(moments, "BLOCK_ROWS", (8, 16))
    most = []
    add, panels = triangle.Products._add, triangle.add_products

    def added(self, rows):
        add(self, rows)
        most.append(self._held)

    def by_panels(held, rows):
        panels(held, rows)
        most.append(len(rows))

    monkeypatch.setattr(triangle.Products, "_add", added)
    monkeypatch.setattr(triangle, "add_products", by_panels)
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        most.clear()
        gathered(rows(500, 4).float(), torch.float32, [1, 30, 9, 60, 400])
        assert max(most) == moments.BLOCK_ROWS[1]


def test_blocks_depend_on_the_rows_alone():
    values = rows(100, 3)
    whole = [block.clone() for block in moments._blocks([values], 16)]
    parts = list(values.float().split([1, 2, 50, 17, 30]))
    split = [block.clone() for block in moments._blocks(parts, 16)]
    assert [len(block) for block in whole] == [15] * 6 + [10]
    assert torch.equal(torch.cat(whole), values)
    assert [len(block) for block in split] == [len(block) for block in whole]
    assert torch.equal(torch.cat(split), values.float().double())
