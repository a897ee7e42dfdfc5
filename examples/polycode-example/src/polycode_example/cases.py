"""What the plugins are checked with: see the entry points `polycode_plugins.cases`."""

from __future__ import annotations

import torch
from torch import Tensor

from polycode_example.adapter import EchoAdapter
from polycode_example.explainer import OneTokenExplainer
from polycode_example.metric import Sparseness
from polycode_example.network import EchoNetwork
from polycode_plugins import Batch
from polycode_plugins.testing import AdapterCase, ExplainerCase, KnownAnswer, MetricCase


def adapter() -> AdapterCase:
    """A small network, and its states by other means than the adapter."""
    network = EchoNetwork(width=5)

    def truth(batch: Batch) -> dict[str, Tensor]:
        drive = network.drive(batch.inputs)
        states = [torch.tanh(drive[:, 0])]
        for t in range(1, drive.shape[1]):
            states.append(torch.tanh(drive[:, t] + states[-1] @ network.step.weight.T))
        return {"drive": drive, "state": torch.stack(states, 1)}

    data = torch.randn(7, 6, 3, generator=torch.Generator().manual_seed(0))
    return AdapterCase(make=lambda: EchoAdapter(network), data=data, truth=truth)


def metric() -> MetricCase:
    """Each of four units is active on one of four samples: the sparseness is 1 - 1/4."""
    return MetricCase(
        make=Sparseness,
        known=[KnownAnswer(torch.eye(4).double(), {"sparseness": 0.75, "silent": 0.0})],
    )


def explainer() -> ExplainerCase:
    """It needs nothing else."""
    return ExplainerCase(make=OneTokenExplainer)
