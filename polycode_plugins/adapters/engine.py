"""For adapters of engines: models that run in workers, where activations stay and statistics go.

Moving activations costs many times what statistics of them do. An adapter whose model runs in
processes of its own says `gathers = True` and gives by `gathering` a capture whose statistics are
there: what goes in are names of installed code with JSON settings, what comes out are tensors.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polycode_plugins import errors
from polycode_plugins.activations import Activations, Site
from polycode_plugins.adapters.base import Capture
from polycode_plugins.errors import PolycodeError, SiteError, StateError

REPORT = "report"  # the tensor that holds the report among those of a state


class EngineCapture(Capture):
    """An open capture whose statistics are gathered elsewhere.

    `fired`, `problems`, `left_out` and `unclear` are as of the last `refresh`.

    Attributes:
        report: what the workers said last, as JSON values.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        super().__init__(sites, _keep_away)
        self.report: dict[str, Any] = {}

    @abstractmethod
    def ask(self, *, state: bool) -> dict[str, Tensor]:
        """The state of the statistics, as `Statistics.state` gives it, or nothing, and under
        `REPORT` what is to be known of them; see `packed_report`."""

    def refresh(self, *, state: bool = False) -> dict[str, Tensor]:
        """Take in what the workers say; with `state` also what they have gathered.

        Raises:
            StateError: where they say nothing that can be read.
        """
        found = dict(self.ask(state=state))
        try:
            self.report = json.loads(bytes(found.pop(REPORT).tolist()))
            self.fired = {name: int(n) for name, n in self.report["fired"].items()}
            self.left_out = self.report["left_out"]
            for name, (kind, sentence) in self.report["problems"].items():
                self.problems.setdefault(name, told(kind, sentence))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise StateError(
                f"the engine's workers sent no report that can be read: {error}"
            ) from (error)
        return found


def packed_report(report: Mapping[str, Any]) -> Tensor:
    """A report of JSON values, as a tensor that goes with those of a state."""
    return torch.tensor(list(json.dumps(report).encode()), dtype=torch.uint8)


def told(kind: str, sentence: str) -> PolycodeError:
    """The error of that kind, one of `polycode_plugins.errors`, which a worker told of."""
    made = getattr(errors, kind, SiteError)
    known = isinstance(made, type) and issubclass(made, PolycodeError)
    return made(sentence) if known else SiteError(sentence)


def _keep_away(name: str, _activations: Activations) -> None:
    raise AssertionError(f"activations of {name!r} left their engine")
