"""An adapter: names the places of a network, feeds it, and hands over its activations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from polycode_example.network import EchoNetwork
from polycode_plugins import ModelError
from polycode_plugins.adapters import (
    Adapter,
    Batch,
    Capture,
    DataOptions,
    Sink,
    Site,
    tensor_batches,
)

AXES = ("batch", "position", "feature")  # of every site: a time step is a position


class EchoAdapter(Adapter):
    """Echo networks: the site "drive" is what enters a state, "state" what comes of it.

    Args:
        model: a live `EchoNetwork`, or a name such as "echo-24" for a random one of that width.

    Raises:
        ModelError: for anything else.
    """

    name = "echo"

    def __init__(self, model: EchoNetwork | str) -> None:
        if isinstance(model, str) and (named := re.fullmatch(r"echo-([1-9]\d{0,3})", model)):
            model = EchoNetwork(width=int(named[1]))
        if not isinstance(model, EchoNetwork):
            raise ModelError(
                f"the echo adapter reads an EchoNetwork or a name such as echo-24, not {model!r}; "
                "name another adapter"
            )
        self._model = model

    @classmethod
    def accepts(cls, model: object) -> bool:
        """Its own networks, live or by name."""
        named = isinstance(model, str) and re.fullmatch(r"echo-[1-9]\d{0,3}", model) is not None
        return named or isinstance(model, EchoNetwork)

    @property
    def model(self) -> EchoNetwork:
        """The live network."""
        return self._model

    def sites(self, example: Batch | None = None) -> list[Site]:
        """Both, in the order in which they are complete."""
        width = self._model.drive.out_features
        return [Site("drive", 0, AXES, width), Site("state", 1, AXES, width)]

    def batches(self, data: Any, options: DataOptions) -> Iterable[Batch]:
        """Batches of a tensor or array [rows, time, inputs]; 200 noisy sines where it is None."""
        return tensor_batches(_sines() if data is None else data, options)

    def forward(self, batch: Batch, stop_after: Site | None = None) -> None:
        """Run the network; it is quick, so it always runs to the end."""
        self._model(batch.inputs)

    @contextmanager
    def capture(self, sites: Sequence[Site], sink: Sink) -> Iterator[Capture]:
        """While open, every pass hands over the drive, and the states once all are there."""
        wanted = {site.name: site for site in sites}
        live = Capture(sites, sink)
        drive, states = torch.empty(0), list[Tensor]()

        def on_drive(module: Any, args: Any, output: Tensor) -> None:
            nonlocal drive
            drive = output
            states.clear()
            if "drive" in wanted:
                live.receive(wanted["drive"], output, AXES)

        def on_step(module: Any, args: Any, output: Tensor) -> None:
            # No module holds the state: it is worked out again from what enters it.
            states.append(torch.tanh(drive[:, len(states)] + output))
            if "state" in wanted and len(states) == drive.shape[1]:
                live.receive(wanted["state"], torch.stack(states, 1), AXES)

        with ExitStack() as hooks:  # they are removed whatever happens inside
            hooks.enter_context(self._model.drive.register_forward_hook(on_drive))
            hooks.enter_context(self._model.step.register_forward_hook(on_step))
            yield live


def _sines() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rate, shift = torch.rand(2, 200, 1, 3, generator=generator)
    time = torch.arange(12.0)[:, None]
    noise = 0.1 * torch.randn(200, 12, 3, generator=generator)
    return torch.sin(rate * time + 6.3 * shift) + noise
