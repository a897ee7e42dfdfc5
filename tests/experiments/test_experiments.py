"""The experiments of the papers."""

from __future__ import annotations

import pytest

from polycode_plugins import experiments


@pytest.mark.parametrize("name", experiments.PAPERS)
def test_every_experiment_is_complete(name):
    found = experiments.get(name)
    assert found.name == name
    assert set(found.settings) == set(experiments.SCALES)
    assert found.claims
    assert all(c.text and c.source and c.statistic for c in found.claims)
