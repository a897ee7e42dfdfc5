"""One whole simulation of a known text, before the first unit is paid for.

A server that gives log-probabilities, and a model that answers small questions, may still not be
able to simulate: no number is among its likeliest tokens, or it loses count. So the simulators that
fit are tried, the best first, and the first that can be read is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polycode_plugins.explainers.base import LEVELS, Explanation, Floats, SimulationTask
from polycode_plugins.explainers.language_model.capabilities import Method
from polycode_plugins.explainers.language_model.model import Model
from polycode_plugins.explainers.language_model.simulators import BY_METHOD, RemoteSimulator
from polycode_plugins.explainers.language_model.transport.failures import RemoteError

PHRASE = "names of colours"
COLOURS = ("red", "blue", "green", "yellow")
TEXT = (
    "The", " red", " door", " and", " the", " blue", " one", " were", " open", ",", " but",
    " nobody", " came", ".", " A", " green", " van", " stood", " by", " the", " yellow", " gate",
    ".", "\n",
)  # fmt: skip
TRUTH = np.array([float(LEVELS * (token.strip() in COLOURS)) for token in TEXT])
WEAK = 0.3  # a correlation on the known text below which the simulator is called weak


def tried(model: Model, methods: Sequence[Method]) -> tuple[RemoteSimulator, str]:
    """The first simulator that can be read on a known text, and a warning about it or "".

    Raises:
        RemoteError: where none can.
    """
    number = int(model.session.store.fact("probes") or 0)
    reasons = []
    task = SimulationTask(Explanation("trial", "trial", PHRASE), (TEXT,))
    for method in methods:
        simulator = BY_METHOD[method](model, trial=number)
        found = simulator.simulate_many([task])[0][0]
        if found.expected is not None:
            return BY_METHOD[method](model), _warning(method, found.expected)
        reasons.append(f"{method}: {found.reason}")
    raise RemoteError(
        f"{model.name!r} at {model.session.backend.identity} could not simulate a known text of "
        f"{len(TEXT)} tokens ({'; '.join(reasons)}); use another model or server as simulator"
    )


def _warning(method: Method, expected: Floats) -> str:
    if np.ptp(expected) == 0:
        return (
            f"the simulator {method!r} expects the same level at every token of a known text, so "
            "its model may be too weak to simulate: a constant has no correlation"
        )
    r = float(np.corrcoef(expected, TRUTH)[0, 1])
    if r >= WEAK:
        return ""
    return (
        f"the simulator {method!r} correlates {r:.2f} with the truth on a known text whose "
        "explanation is right, so its model may be too weak to simulate"
    )
