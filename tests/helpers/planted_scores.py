"""Explainers that fail in ways known, and units for them."""

from __future__ import annotations

import numpy as np
from planted import (
    record,
)

from polycode_plugins.explainers.base import (
    Explainer,
    Explanation,
    Simulation,
    Simulator,
)
from polycode_plugins.explainers.lookup import TokenLookupExplainer


def made(n, document=0, values=(0.0, 5.0, 0.0)):
    return [
        record(["a", f"w{document + i}", "b"], np.asarray(values) - i / 100, document + i)
        for i in range(n)
    ]


class Half(Explainer):
    """Refuses every second unit, and fails to simulate some texts of the others."""

    name = "half"

    def __init__(self, lost: int) -> None:
        self.lost = lost

    def explain_many(self, units, *, seed=0):
        good = TokenLookupExplainer().explain_many(units)
        return [
            e if i % 2 else Explanation.failed(e.unit, self.name, "it refused")
            for i, e in enumerate(good)
        ]

    def simulator(self):
        return Losing(self.lost)


class Losing(Simulator):
    name = "losing"

    def __init__(self, lost: int) -> None:
        self.lost = lost

    def simulate_many(self, tasks):
        found = TokenLookupExplainer().simulator().simulate_many(tasks)
        for simulations in found:
            simulations[: self.lost] = [Simulation.failed("unparsable")] * self.lost
        return found
