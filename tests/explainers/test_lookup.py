"""The token lookup."""

from __future__ import annotations

import numpy as np
import pytest
from planted import (
    NEURONS,
    toy,
)


def test_a_unit_of_one_word_is_explained_and_another_units_explanation_is_not():
    neurons = [u for u in toy() if u.kind == "neuron"]
    assert len(neurons) == NEURONS
    for i, unit in enumerate(neurons):
        assert unit.evaluation.explanation.text.endswith(f": ' word{i}' 10.0")
        assert unit.score("correlation") > 0.95
        assert unit.score("auprc") == 1
        assert unit.score("detection") == 1
        assert unit.score("fuzzing") == 1
        floors = unit.evaluation.floors
        assert floors["shuffled"].values["auprc"] < 0.3
        assert floors["oracle"].values["correlation"] > 0.99
    found = [u.evaluation.floors["shuffled"].values["correlation"] for u in neurons]
    shuffled = [r for r in found if r is not None]  # None: the other word is in none of the texts
    assert len(shuffled) >= NEURONS // 2
    # Two words exclude each other at a token, so that chance is a little below 0.
    assert np.mean(shuffled) == pytest.approx(0, abs=0.05)
