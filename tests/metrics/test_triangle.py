"""Panels of the lower triangle, against the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from polycode_plugins.metrics import triangle

CPU = torch.device("cpu")


def rows(n: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, width, generator=generator, dtype=torch.float64)


def summed(
    values: torch.Tensor, dtype: torch.dtype = torch.float64, most: int = 64
) -> list[torch.Tensor]:
    panels = triangle.empty(values.shape[1], CPU)
    products = triangle.Products(panels, dtype, most)
    for n, part in enumerate(values.split(50)):
        products.add(part[1:].to(dtype), part[0] if n else None)  # as blocks and their means come
        if not n:
            triangle.add_products(panels, part[:1])
    products.finish()
    return panels


@pytest.mark.parametrize("width", [1, 5, 96, 97, 400, 2000])
def test_panels_are_the_whole_triangle_once(width):
    spans = triangle.spans(width)
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    assert spans[-1][1] == width
    panels = triangle.empty(width, CPU)
    assert [tuple(p.shape) for p in panels] == [(stop - start, stop) for start, stop in spans]
    assert sum(p.numel() for p in panels) == triangle.size(width)
    assert triangle.size(width) <= width**2
    if width == 2000:  # half a matrix, and a little of the other half
        assert triangle.size(width) < 0.6 * width**2


@pytest.mark.parametrize("threads", [1, 2])  # by the symmetric product of BLAS, and by panels
@pytest.mark.parametrize("width", [3, 250])
def test_products_are_those_of_the_rows(width, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    values = rows(230, width)
    whole = (values.T @ values).numpy()
    for dtype, near in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        panels = summed(values, dtype)
        full = triangle.symmetric(panels).numpy()
        assert np.abs(full - whole).max() < near * whole.max()
        assert np.array_equal(full, full.T)
        assert torch.equal(triangle.diagonal(panels), torch.from_numpy(full).diagonal())


@pytest.mark.parametrize("width", [1, 3, 250])
def test_what_is_packed_is_the_lower_triangle_and_comes_back(width):
    panels = summed(rows(60, width))
    packed = triangle.packed(panels)
    full = triangle.symmetric(panels).numpy()
    assert np.array_equal(packed.numpy(), full[np.tril_indices(width)])
    assert np.array_equal(triangle.symmetric(triangle.unpacked(packed, width)).numpy(), full)


def test_the_threads_of_blas_are_as_before():
    def threads() -> list[int]:
        return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

    before = threads()
    summed(rows(2000, 20))
    assert threads() == before
