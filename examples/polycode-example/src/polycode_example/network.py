"""The network that the adapter reads: a recurrent one, whose states no module holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EchoNetwork(nn.Module):
    """Random recurrent network: state[t] = tanh(drive[t] + step(state[t - 1])).

    Args:
        width: units of the state.
        inputs: values per time step.
        seed: of the weights.
    """

    def __init__(self, width: int = 16, inputs: int = 3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.drive = nn.Linear(inputs, width)
            self.step = nn.Linear(width, width, bias=False)
            self.readout = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 2] from [batch, time, inputs]."""
        drive = self.drive(x)
        state = torch.zeros_like(drive[:, 0])
        for t in range(drive.shape[1]):
            state = torch.tanh(drive[:, t] + self.step(state))
        answer: Tensor = self.readout(state)
        return answer
