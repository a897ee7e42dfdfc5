"""Who is told of the rows of a batch before the engine runs them, and of their end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safetensors.torch import load as tensors_of
from torch import Tensor

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Capture
from polycode_plugins.adapters.engine import EngineCapture
from polycode_plugins.adapters.vllm.reader import Reader
from polycode_plugins.adapters.vllm.texts import Row
from polycode_plugins.errors import StateError


class Listener:
    """Something that is told of the rows of a batch before it runs, and of its end."""

    def know(self, rows: Mapping[str, Row]) -> None:
        """Take in what is known of requests to come, by their names."""
        raise NotImplementedError

    def ended(self, under_way: bool) -> None:
        """Take in that a batch has ended; `under_way` where requests of others have not."""
        raise NotImplementedError


class InProcess(Listener):
    """A reader of a model in this process, and the capture that it fills."""

    def __init__(self, reader: Reader, live: Capture) -> None:
        self._reader, self._live = reader, live

    def know(self, rows: Mapping[str, Row]) -> None:
        """Tell the reader."""
        self._reader.texts.know(rows)

    def ended(self, under_way: bool) -> None:
        """Hand the texts on, and raise what went wrong in a pass of our own."""
        self._reader.settle(under_way=under_way)
        self._live.fired = dict(self._reader.fired)
        self._live.left_out = self._reader.left_out
        self._live.problems |= self._reader.problems
        if self._live.batch is not None:
            for error in self._live.problems.values():
                raise error


class InWorkers(EngineCapture, Listener):
    """Statistics in the workers of an engine.

    Args:
        sites: where.
        call: calls a method of all workers by its name, with texts, and gives what they answer.
        busy: whether the engine has requests under way.
        handle: that the first worker gave to the statistics.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        call: Callable[..., list[Any]],
        busy: Callable[[], bool],
        handle: str,
    ) -> None:
        super().__init__(sites)
        self._call, self._busy, self._handle = call, busy, handle

    def know(self, rows: Mapping[str, Row]) -> None:
        """Tell the workers."""
        told = {name: [row.number, row.document, row.left_out] for name, row in rows.items()}
        self._call("polycode_rows", self._handle, json.dumps(told))

    def ended(self, under_way: bool) -> None:
        """The statistics are asked for when they are needed."""

    def ask(self, *, state: bool) -> dict[str, Tensor]:
        """What the first worker answers."""
        asked = {"state": state, "under_way": self._busy()}
        answer = self._call("polycode_state", self._handle, json.dumps(asked))[0]
        try:
            found: dict[str, Tensor] = tensors_of(bytes(answer))
            return found
        except Exception as error:  # the library raises its own
            raise StateError(f"the engine's worker sent no statistics: {error}") from error
