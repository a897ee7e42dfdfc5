"""What an engine's workers are given: statistics of their requests, gathered where the model runs.

`StatisticsWorker` is named to vLLM as `worker_extension_cls`, so that its methods are those of each
worker. JSON goes in and safetensors bytes come out; nothing that is sent is run as code.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from polycode_plugins.activations import Activations
from polycode_plugins.adapters.engine import REPORT, packed_report
from polycode_plugins.adapters.text import token_text
from polycode_plugins.adapters.vllm.loading import forward_context, tokenizer_of
from polycode_plugins.adapters.vllm.reader import Reader
from polycode_plugins.adapters.vllm.sites import Place, listed, places
from polycode_plugins.adapters.vllm.texts import Row
from polycode_plugins.errors import PolycodeError
from polycode_plugins.files.weights import fingerprint, parameter_count
from polycode_plugins.metrics.names import rebuild_metrics
from polycode_plugins.runs.gathering import Statistics
from polycode_plugins.runs.memory import Room, TooLarge


class StatisticsWorker:
    """Methods for a worker of vLLM; called by name through `LLM.collective_rpc`.

    Of several tensor-parallel workers the first one gathers: each holds the whole stream.
    """

    def polycode_about(self) -> str:
        """JSON: the model's sites, its type, width, parameters, and its weights' fingerprint."""
        try:
            model = _model(self)
            width = int(_text_config(self).hidden_size)
            sites = listed(places(model, width, _world(self)))
            about = {
                "sites": [dataclasses.asdict(site) for site in sites],
                "type": type(model).__name__,
                "width": width,
                "parameters": parameter_count(model),
                "fingerprint": fingerprint(model),
            }
        except PolycodeError as error:
            about = {"error": str(error)}
        return json.dumps(about)

    def polycode_open(self, settings: str) -> str:
        """Begin to gather; returns the handle that the other methods take.

        Args:
            settings: JSON: names of "sites", "metrics" as `describe_metric` writes them, ids of
                "special" tokens, "longest" tokens of a piece, "room" for what waits and "memory" of
                this process, in bytes, and "rows" that come at most.
        """
        held = _held(self)
        handle = str(max(map(int, held), default=0) + 1)
        held[handle] = Gathered(self, json.loads(settings)) if _first(self) else None
        return handle

    def polycode_rows(self, handle: str, rows: str) -> None:
        """Take in {name of a request: [row, document, positions that do not count]}, JSON."""
        gathered = _held(self)[handle]
        if gathered is not None:
            told = json.loads(rows)
            gathered.reader.texts.know(
                {k: Row(r, d, tuple(out)) for k, (r, d, out) in told.items()}
            )

    def polycode_state(self, handle: str, asked: str) -> bytes:
        """Bytes of a safetensors file: the report, and with "state" what was gathered.

        Args:
            handle: of `polycode_open`.
            asked: JSON: "state", and whether the engine has requests "under_way".
        """
        gathered = _held(self)[handle]
        if gathered is None:
            return b""
        return gathered.answer(**json.loads(asked))

    def polycode_close(self, handle: str) -> None:
        """Gather no more, and leave nothing behind."""
        gathered = _held(self).pop(handle, None)
        if gathered is not None:
            gathered.reader.close()


class Gathered:
    """Statistics in a worker, and what reads the model for them.

    Args:
        worker: of vLLM.
        settings: see `StatisticsWorker.polycode_open`.
    """

    def __init__(self, worker: Any, settings: Mapping[str, Any]) -> None:
        model = _model(worker)
        width = int(_text_config(worker).hidden_size)
        known = {place.name: place for place in places(model, width, _world(worker))}
        wanted: list[Place] = [known[name] for name in settings["sites"]]
        order = {site.name: site for site in listed(list(known.values()))}
        self.statistics = Statistics(
            rebuild_metrics(settings["metrics"]), [order[place.name] for place in wanted]
        )
        self._rows, self._memory = settings["rows"], settings["memory"]
        self._checked = False
        self._failure: dict[str, Any] | None = None
        self.reader = Reader(
            worker.model_runner,
            model,
            wanted,
            self._receive,
            forward_context,
            special=settings["special"],
            text=token_text(tokenizer_of(worker.model_config)),
            longest=settings["longest"],
            room=settings["room"],
        )

    def _receive(self, site: str, activations: Activations) -> None:
        self.statistics.receive(site, activations)

    def answer(self, *, state: bool, under_way: bool) -> bytes:
        """See `StatisticsWorker.polycode_state`."""
        left = self.reader.settle(under_way=under_way)
        for site, error in self.statistics.not_finite().items():
            self.reader.problems.setdefault(site, error)
        self._check()
        report = {**self.reader.report(), "under_way": left, "failure": self._failure}
        tensors: dict[str, Tensor] = {REPORT: packed_report(report)}
        if state:
            # A file holds each tensor by itself, and some states are views of one another.
            tensors |= {k: v.clone().contiguous() for k, v in self.statistics.state().items()}
        return bytes(save(tensors))

    def _check(self) -> None:
        """Once all sites have come, see that each can have a result and that all of them fit."""
        if self._checked or not all(self.reader.fired.values()):
            return
        self._checked = True
        try:
            self.statistics.check_sites()
            Room(self._memory).require(self.statistics, self._rows)
        except PolycodeError as error:
            groups = error.groups if isinstance(error, TooLarge) else []
            self._failure = {"kind": type(error).__name__, "said": str(error), "groups": groups}


_STORE = "_polycode_gathered"


def _held(worker: Any) -> dict[str, Gathered | None]:
    found: dict[str, Gathered | None] = worker.__dict__.setdefault(_STORE, {})
    return found


def _model(worker: Any) -> torch.nn.Module:
    model: torch.nn.Module = worker.model_runner.get_model()
    return model


def _text_config(worker: Any) -> Any:
    return worker.model_config.hf_text_config


def _world(worker: Any) -> int:
    return int(worker.parallel_config.tensor_parallel_size)


def _first(worker: Any) -> bool:
    return int(worker.rank) == 0
