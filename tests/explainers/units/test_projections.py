"""Random projections."""

from __future__ import annotations

import pytest
import torch

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.directions import directions
from polycode_plugins.explainers.units.neurons import neurons
from polycode_plugins.explainers.units.projections import projections


def test_units_are_what_they_say():
    drawn = projections(64, 500, seed=3)
    assert drawn.directions.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    assert torch.equal(drawn.directions[:10], projections(64, 10, seed=3).directions)
    free = projections(64, 500, norm=None).directions
    assert float(free.var()) == pytest.approx(1 / 64, rel=0.03)
    signs = projections(16, 3, distribution="rademacher", norm=None).directions
    assert set(signs.abs().flatten().tolist()) == {0.25}
    x = torch.randn(2, 3, 64)
    chosen = neurons(64, [5, 9])
    assert torch.equal(chosen.project(x), x[..., [5, 9]])
    assert torch.allclose(drawn.project(x), x @ drawn.directions.T, atol=1e-5)
    for wrong in ([64], [-1]):
        with pytest.raises(DataError, match="neurons 0 to 63"):
            neurons(64, wrong)
    with pytest.raises(DataError, match="all zeros"):
        directions(torch.zeros(1, 4))


def test_what_units_read_keeps_its_precision_inside_autocast():
    units, values = projections(24, 100, seed=1), torch.randn(5, 40, 24)
    expected = units.project(values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(units.project(values), expected)
        parts = torch.cat([read for _, read in units.by_unit(values)])
    torch.testing.assert_close(parts, expected.movedim(-1, 0), rtol=1e-5, atol=1e-5)
