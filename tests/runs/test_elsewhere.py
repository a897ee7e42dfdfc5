"""Statistics that the workers of an engine gather, through the worker's own methods; no vLLM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packed_engine import WIDTH, PackedEngine
from safetensors.torch import load as tensors_of
from torch import Tensor

import polycode_plugins as pc
from polycode_plugins.activations import Site
from polycode_plugins.adapters import Adapter, Batch, EngineCapture, tensor_batches
from polycode_plugins.adapters.vllm import reader
from polycode_plugins.errors import DataError, PluginError, SiteError, StateError
from polycode_plugins.metrics import Action, Spectrum
from polycode_plugins.runs import engine_worker, passes
from polycode_plugins.runs.memory import TooLarge

SITES = ["model.layers.0", "blocks.1.hook_resid_post"]
METRICS = (Spectrum(fit="huber", ranks=(1, None)), Action(projections=20))
ROWS = torch.randint(1, 50, (24, 9), generator=torch.Generator().manual_seed(2))


class Worker(engine_worker.StatisticsWorker):
    """What vLLM makes of a worker with `worker_extension_cls`, as far as it is looked at."""

    def __init__(self, engine: PackedEngine, rank: int = 0, world: int = 1) -> None:
        self.model_runner = engine
        self.rank = rank
        self.model_config = SimpleNamespace(
            hf_text_config=SimpleNamespace(hidden_size=WIDTH), skip_tokenizer_init=True
        )
        self.parallel_config = SimpleNamespace(tensor_parallel_size=world)


class InWorker(EngineCapture):
    def __init__(self, adapter: PackedAdapter, sites: list[Site], handle: str) -> None:
        super().__init__(sites)
        self.adapter, self.handle = adapter, handle

    def ask(self, *, state: bool) -> dict[str, Tensor]:
        self.adapter.asked += 1
        question = json.dumps({"state": state, "under_way": self.adapter.under_way})
        return tensors_of(self.adapter.worker.polycode_state(self.handle, question))


class PackedAdapter(Adapter):
    """An adapter of somebody's engine: two rows a step, in chunks of four tokens."""

    name = "packed"
    gathers = True

    def __init__(self, engine: PackedEngine | None = None) -> None:
        self.engine = PackedEngine({}) if engine is None else engine
        self.worker = Worker(self.engine)
        self.open: list[InWorker] = []
        self.asked, self.count, self.under_way = 0, 0, False

    @property
    def model(self) -> Any:
        return self.engine.model

    def sites(self, example: Batch | None = None) -> list[Site]:
        about = json.loads(self.worker.polycode_about())
        return [Site(**{**s, "axes": tuple(s["axes"])}) for s in about["sites"]]

    def batches(self, data: Any, options: Any) -> Any:
        return tensor_batches(data, options)

    def capture(self, sites: Any, sink: Any) -> Any:
        raise AssertionError("its activations stay where they are")

    @contextmanager
    def gathering(
        self, sites: Any, metrics: Any, *, rows: int | None = None, memory: int | None = None
    ) -> Iterator[EngineCapture]:
        settings = {
            "sites": [site.name for site in sites], "metrics": list(metrics), "special": [],
            "longest": None, "room": 2**26, "rows": rows, "memory": memory,
        }  # fmt: skip
        handle = self.worker.polycode_open(json.dumps(settings))
        live = InWorker(self, list(sites), handle)
        self.open.append(live)
        try:
            yield live
        finally:
            self.open.remove(live)
            self.worker.polycode_close(handle)

    def forward(self, batch: Batch, stop_after: Site | None = None) -> None:
        names = [f"r{self.count + i}-00000000" for i in range(len(batch))]
        self.count += len(batch)
        self.engine.texts |= dict(zip(names, batch.inputs.tolist(), strict=True))
        told = {n: [row, row, []] for n, row in zip(names, batch.rows.tolist(), strict=True)}
        for live in self.open:
            self.worker.polycode_rows(live.handle, json.dumps(told))
        for pair in (names[i : i + 2] for i in range(0, len(names), 2)):
            for first in range(0, batch.inputs.shape[1], 4):
                count = min(4, batch.inputs.shape[1] - first)
                self.engine.step(dict.fromkeys(pair, (first, count)))


@pytest.fixture(autouse=True)
def context(monkeypatch: pytest.MonkeyPatch) -> None:
    current: dict[str, Any] = {}
    begin = PackedEngine.step

    def step(self: PackedEngine, *args: Any, **kwargs: Any) -> None:
        current["engine"] = self
        begin(self, *args, **kwargs)

    monkeypatch.setattr(PackedEngine, "step", step)
    monkeypatch.setattr(engine_worker, "forward_context", lambda: current["engine"].context())


def truth(engine: PackedEngine, rows: Tensor) -> Any:
    engine.texts |= {f"truth{i}": row for i, row in enumerate(rows.tolist())}
    found = [engine.truth(f"truth{i}") for i in range(len(rows))]
    names = {"model.layers.0": "model.layers.0", "blocks.1.hook_resid_post": "model.layers.1"}
    held = {site: torch.stack([one[name] for one in found]) for site, name in names.items()}
    return pc.measure(held, METRICS)


def close(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for site in found:
        assert found.n_samples(site) == expected.n_samples(site)
        for key in ("exponent", "participation_ratio", "total_variance", "effective_samples"):
            a, b = (getattr(one[site, "spectrum"], key) for one in (found, expected))
            assert a == pytest.approx(b, rel=1e-4), key
        a, b = (one[site, "action"].scalars() for one in (found, expected))
        for key, value in b.items():
            if isinstance(value, float):
                assert a[key] == pytest.approx(value, rel=1e-4, abs=1e-9), key


def test_analyze_is_of_the_same_rows_whatever_the_batches():
    adapter = PackedAdapter()
    wanted = truth(adapter.engine, ROWS)
    found = pc.analyze(adapter, ROWS, METRICS, SITES, batch_size=24)
    close(found, wanted)
    assert found.run["rows"]["count"] == 24
    for size in (1, 5):
        again = pc.analyze(PackedAdapter(), ROWS, METRICS, SITES, batch_size=size)
        close(again, wanted)
        assert again.run["rows"] == found.run["rows"]
    model = adapter.engine.model
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_texts_that_are_handed_on_during_steps_are_counted_as_those_at_the_end(monkeypatch):
    monkeypatch.setattr(reader, "DELIVERY", 30)
    adapter = PackedAdapter()
    living = adapter.engine.requests
    whole = PackedEngine.step

    def step(self: PackedEngine, parts: Any, **options: Any) -> None:
        for request in [name for name in living if name not in parts]:
            del living[request]
        whole(self, parts, **options)

    monkeypatch.setattr(PackedEngine, "step", step)
    delivered: list[int] = []
    deliver = reader.Reader.deliver
    monkeypatch.setattr(
        reader.Reader, "deliver", lambda self: (delivered.append(1), deliver(self))[1]
    )
    found = pc.analyze(adapter, ROWS, METRICS, SITES, batch_size=24)
    assert len(delivered) > 4
    close(found, truth(PackedEngine({}), ROWS))


def test_shards_of_an_engine_are_merged():
    parts = [
        pc.analyze(PackedAdapter(), ROWS, METRICS, SITES, shard=(i, 2), batch_size=4)
        for i in range(2)
    ]
    close(parts[0].merge(parts[1]), truth(PackedEngine({}), ROWS))


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "CHECKPOINT_SECONDS", 0.0)
    adapter = PackedAdapter()
    whole, ran = PackedAdapter.forward, []

    def interrupted(self: PackedAdapter, batch: Batch, stop_after: Any = None) -> None:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(len(batch))
        whole(self, batch)

    monkeypatch.setattr(PackedAdapter, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pc.analyze(adapter, ROWS, METRICS, SITES, batch_size=4, out=tmp_path / "run")
    monkeypatch.setattr(PackedAdapter, "forward", whole)
    again = PackedAdapter()
    found = pc.analyze(again, ROWS, METRICS, SITES, batch_size=4, out=tmp_path / "run")
    assert again.count == 24 - 12
    close(found, truth(PackedEngine({}), ROWS))
    close(pc.Analysis.load(tmp_path / "run"), truth(PackedEngine({}), ROWS))


def test_attach_reads_inside_and_after_the_block():
    adapter = PackedAdapter()
    with pc.attach(adapter, SITES, METRICS) as probe:
        with pytest.raises(SiteError, match="did not fire"):
            probe.compute()
        adapter.forward(Batch(ROWS[:10], rows=torch.arange(10)))
        close(probe.compute(), truth(adapter.engine, ROWS[:10]))
        adapter.forward(Batch(ROWS[10:], rows=torch.arange(10, 24)))
        assert probe.n_samples == dict.fromkeys(SITES, 24 * 9)
    asked = adapter.asked
    found = probe.compute()
    close(found, truth(adapter.engine, ROWS))
    assert adapter.asked == asked, "a closed engine was asked"
    assert found.run["engine"] == {"texts": 24, "steps": 36, "repeated": 0, "under_way": 0}


def test_requests_that_have_not_ended_are_waited_for():
    adapter = PackedAdapter()
    adapter.under_way = True
    with pc.attach(adapter, SITES, METRICS) as probe:
        adapter.forward(Batch(ROWS[:2], rows=torch.arange(2)))
        with pytest.raises(SiteError, match="2 requests that passed through it have not ended"):
            probe.compute()
        adapter.under_way = False


def test_what_is_wrong_in_the_worker_is_said_here():
    adapter = PackedAdapter()
    with pc.attach(adapter, SITES, METRICS) as probe:
        adapter.engine.texts["late"] = [1, 2, 3, 4]
        adapter.engine.step({"late": (2, 2)})
    with pytest.raises(DataError, match="did not pass through the model"):
        probe.compute()
    with pytest.raises(DataError, match="can have no result"):
        pc.analyze(PackedAdapter(), ROWS, Spectrum(), SITES)  # six features and ranks from 11


def test_statistics_that_do_not_fit_are_planned_in_passes(tmp_path, monkeypatch):
    def too_large(self: Any, statistics: Any, rows: int | None) -> None:
        if len(statistics.sites) > 1:
            raise TooLarge("they do not fit", [[name] for name in statistics.sites])

    monkeypatch.setattr(engine_worker.Room, "require", too_large)
    with pytest.raises(DataError, match="they do not fit"):
        pc.analyze(PackedAdapter(), ROWS, METRICS, SITES)
    found = pc.analyze(PackedAdapter(), ROWS, METRICS, SITES, out=tmp_path / "run")
    assert found.run["passes"] == 2
    close(found, truth(PackedEngine({}), ROWS))


class Homemade(Spectrum):
    """No entry point has it."""


def test_metrics_and_modes_that_workers_do_not_have_are_refused(monkeypatch):
    with pytest.raises(PluginError, match="install it as a plugin"):
        pc.attach(PackedAdapter(), SITES, [Homemade(label="mine")]).__enter__()
    with pytest.raises(DataError, match="evaluation mode"):
        pc.analyze(PackedAdapter(), ROWS, METRICS, SITES, train_mode=True)
    with pytest.raises(DataError, match="'given'"):
        pc.attach(PackedAdapter(), SITES, mask=torch.ones(2, 2, dtype=torch.bool)).__enter__()
    monkeypatch.setattr("polycode_plugins.runs.distributed.launched", lambda: True)
    with pytest.raises(DataError, match="torchrun"):
        pc.analyze(PackedAdapter(), ROWS, METRICS, SITES)


def test_only_the_first_of_several_workers_gathers():
    second = Worker(PackedEngine({}), rank=1, world=2)
    settings = {
        "sites": ["model.layers.0"], "metrics": [], "special": [], "longest": None,
        "room": 1, "rows": None, "memory": None,
    }  # fmt: skip
    handle = second.polycode_open(json.dumps(settings))
    second.polycode_rows(handle, "{}")
    assert second.polycode_state(handle, json.dumps({"state": True, "under_way": False})) == b""
    second.polycode_close(handle)
    assert not second.model_runner.model._forward_pre_hooks


def test_an_answer_that_is_none_is_an_error(monkeypatch):
    adapter = PackedAdapter()
    with pc.attach(adapter, SITES, METRICS) as probe:
        monkeypatch.setattr(InWorker, "ask", lambda self, *, state: {"report": torch.zeros(3)})
        with pytest.raises(StateError, match="no report that can be read"):
            probe.compute()
        monkeypatch.undo()
        probe._elsewhere = None
