"""Our metrics inside torchmetrics: the same numbers, whatever torchmetrics does with them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import forks
import pytest
import torch
import torch.distributed as dist
import torchmetrics
from torchmetrics.wrappers import BootStrapper, MetricTracker, Running

import polycode_plugins as pc
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics import MINE, Action, Capacity, Spectrum
from polycode_plugins.runs.gathering import Statistics
from polycode_plugins.torchmetrics import TorchMetric, _unpack_into


def data(rows: int = 400, width: int = 24, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, width + 1, dtype=torch.float64) ** -0.5
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) * scale


def exponent(metric: TorchMetric) -> float:
    return float(metric.compute()["spectrum.exponent"])


def test_batches_give_what_one_call_gives():
    metric = TorchMetric("spectrum")
    for part in data().split(70):
        metric.update(part)
    whole = Spectrum().measure(data())
    found = metric.compute()
    assert found["spectrum.exponent"].dtype == torch.float64
    assert float(found["spectrum.exponent"]) == pytest.approx(whole.exponent, rel=1e-9)
    assert int(found["spectrum.n_samples"]) == 400
    assert metric.results()["spectrum"].eigenvalues == pytest.approx(whole.eigenvalues, rel=1e-9)
    assert metric.update_count == 6


def test_forward_returns_the_batch_and_gathers_the_whole():
    metric = TorchMetric("spectrum")
    first, second = data().split(200)
    assert float(metric(first)["spectrum.exponent"]) == pytest.approx(
        Spectrum().measure(first).exponent, rel=1e-9
    )
    assert float(metric(second)["spectrum.exponent"]) == pytest.approx(
        Spectrum().measure(second).exponent, rel=1e-9
    )
    assert exponent(metric) == pytest.approx(Spectrum().measure(data()).exponent, rel=1e-9)


def autoregression(lag: float, rows: int = 96, length: int = 40) -> torch.Tensor:
    """[rows, length, 24]: successive positions of a row are correlated by `lag`, rows are not."""
    values = data(rows * length).reshape(rows, length, 24)
    for position in range(1, length):
        fresh = (1 - lag**2) ** 0.5 * values[:, position]
        values[:, position] = lag * values[:, position - 1] + fresh
    return values


def numbers(value: object) -> list[float]:
    """All numbers of a full result, in the order of its fields, but those that name rows by the
    order in which they came."""
    if isinstance(value, dict | list):
        return [
            n
            for part in (
                [v for k, v in value.items() if k != "row"] if isinstance(value, dict) else value
            )
            for n in numbers(part)
        ]
    return [float(value)] if isinstance(value, int | float) else []


def merged(parts: list[torch.Tensor]) -> TorchMetric:
    """A metric of its own for each part, merged from the first on."""
    total, *others = (TorchMetric("spectrum") for _ in parts)
    for metric, part in zip((total, *others), parts, strict=True):
        metric.update(part)
    for at, other in enumerate(others):
        total.merge_state(other if at % 2 else other.metric_state)
    return total


def reloaded(parts: list[torch.Tensor]) -> TorchMetric:
    """A metric that is saved, and loaded into a new one, after each part."""
    total = TorchMetric("spectrum")
    for part in parts:
        state = {"packed": total.packed}
        total = TorchMetric("spectrum")
        total.load_state_dict(state)
        total.update(part)
    return total


@pytest.mark.parametrize("lag", [0.0, 0.8])
def test_a_stream_in_pieces_gives_the_whole_result(lag):
    values = autoregression(lag)
    whole = TorchMetric("spectrum")
    whole.update(values)
    found = whole.results()["spectrum"]
    assert found.effective_from == "documents"
    apart = torch.arange(40)
    correlation = lag ** (apart[:, None] - apart).abs().double()
    planted = values[..., 0].numel() / float(correlation.square().sum() / 40)
    assert found.effective_samples == pytest.approx(planted, rel=0.1 if lag else 1e-12)

    forwarded = TorchMetric("spectrum")
    parts = list(values.split(4))  # fewer documents than it takes to know their correlation
    for part in parts:
        forwarded(part)
    order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(0)).tolist()
    tree = [merged([parts[i] for i in order[at : at + 5]]) for at in range(0, len(parts), 5)]
    joined = tree.pop()
    for branch in tree:
        joined.merge_state(branch)
    expected = numbers(whole.results()["spectrum"].to_dict())
    assert len(expected) > 30
    for metric in (merged(parts), reloaded(parts), forwarded, joined):
        found = numbers(metric.results()["spectrum"].to_dict())
        assert found == pytest.approx(expected, rel=1e-6)


def test_paths_along_rows_go_on_in_batches_and_states_and_end_where_metrics_are_merged():
    values = data(60)
    path = values.diff(dim=0).square().sum(dim=1)

    def energy(metric: TorchMetric) -> float:  # of E ||..||^2 / 2, see Action
        return float(metric.results()["action"].expected)

    whole, batched, forwarded = (TorchMetric(Action(path="rows")) for _ in range(3))
    whole.update(values)
    for part in values.split(20):
        batched.update(part)
        forwarded(part)
    state = {"packed": batched.packed}
    loaded = TorchMetric(Action(path="rows"))
    loaded.load_state_dict(state)
    for metric in (whole, loaded):
        metric.update(data(20, seed=1))
    for metric in (batched, forwarded):
        metric.update(data(20, seed=1))
        assert energy(metric) == pytest.approx(energy(whole), rel=1e-9)
    assert energy(loaded) == pytest.approx(energy(whole), rel=1e-9)

    whole.reset()
    whole.update(values)
    total, *others = (TorchMetric(Action(path="rows")) for _ in range(3))
    for metric, part in zip((total, *others), values.split(20), strict=True):
        metric.update(part)
    for other in others:
        total.merge_state(other)
    seams = float(path[[19, 39]].sum() / path.sum())
    # Three paths of 20 rows; an action is that of a path on average.
    assert 3 * energy(total) == pytest.approx(energy(whole) * (1 - seams), rel=1e-9)


def test_mine_merges_too():
    metric = MINE(estimators=("gaussian",))
    values = data(400)
    whole = TorchMetric(metric)
    whole.update(values)
    total, other = TorchMetric(metric), TorchMetric(metric)
    total.update(values[:250])
    other.update(values[250:])
    total.merge_state(other)
    found = [m.results()["mine"].nats for m in (total, whole)]
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_merge_reset_clone_and_state_dict():
    a, b = TorchMetric("spectrum"), TorchMetric("spectrum")
    first, second = data().split(200)
    a.update(first)
    b.update(second)
    before = exponent(a)
    copy = a.clone()
    a.merge_state(b)
    assert exponent(a) == pytest.approx(Spectrum().measure(data()).exponent, rel=1e-9)
    assert exponent(copy) == before  # the clone has a state of its own

    a.persistent(True)
    restored = TorchMetric("spectrum")
    restored.persistent(True)
    restored.load_state_dict(a.state_dict())
    restored._update_count = a.update_count  # torchmetrics does not save it
    assert exponent(restored) == exponent(a)

    a.reset()
    a.update(first)
    assert exponent(a) == before


def test_in_a_collection_each_metric_keeps_its_numbers():
    together = torchmetrics.MetricCollection(
        {
            "spectrum": TorchMetric("spectrum"),
            "short": TorchMetric(Spectrum(ranks=(2, 10), label="short")),
            "capacity": TorchMetric(Capacity()),
            "mean": torchmetrics.MeanMetric(),
        }
    )
    for part in data().split(100):
        together.update(part)
    found = together.compute()
    assert float(found["spectrum.exponent"]) == pytest.approx(
        Spectrum().measure(data()).exponent, rel=1e-9
    )
    assert float(found["short.exponent"]) == pytest.approx(
        Spectrum(ranks=(2, 10)).measure(data()).exponent, rel=1e-9
    )
    expected = Capacity().measure(data()).scalars()
    for field, value in expected.items():
        if isinstance(value, float):
            assert float(found[f"capacity.{field}"]) == pytest.approx(value, rel=1e-9)
    assert float(found["mean"]) == pytest.approx(float(data().mean()), rel=1e-5)


def test_several_metrics_in_one_share_their_statistics():
    metric = TorchMetric("spectrum", "capacity")
    metric.update(data())
    held = metric._statistics._held["values"]
    kinds = ["covariance", "priority-sample", "row-groups"]
    assert sorted(key.partition("(")[0] for key in held) == kinds
    assert {k.partition(".")[0] for k in metric.compute()} == {"spectrum", "capacity"}


def test_a_running_window_gives_what_its_batches_give():
    running = Running(TorchMetric("spectrum"), window=20)
    parts = autoregression(0.8, rows=120).split(4)
    for at, part in enumerate(parts):
        running(part) if at % 2 else running.update(part)
    expected = merged(list(parts[-20:])).compute()
    found = running.compute()
    assert found.keys() == expected.keys()
    assert float(found["spectrum.effective_samples"]) < 0.5 * 80 * 40
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-6, nan_ok=True)


def test_a_mask_leaves_samples_out():
    values = data().reshape(20, 20, 24).clone()
    mask = torch.ones(20, 20, dtype=torch.bool)
    mask[:, 0] = False
    values[:, 0] = 1e6
    metric = TorchMetric("spectrum")
    metric.update(values, mask)
    kept = values[:, 1:].reshape(-1, 24)
    assert exponent(metric) == pytest.approx(Spectrum().measure(kept).exponent, rel=1e-9)


def test_a_small_batch_keeps_what_came_before():
    values = data(403)
    metric = TorchMetric("spectrum")
    said = [metric(part) for part in values.split(100)]
    assert said[0].keys() == said[-1].keys()
    assert all(torch.isnan(value) for value in said[-1].values())  # of 3 rows nothing is known
    assert int(metric.compute()["spectrum.n_samples"]) == 403
    assert exponent(metric) == pytest.approx(Spectrum().measure(values).exponent, rel=1e-9)
    first = TorchMetric("spectrum", value="exponent")
    assert torch.isnan(first(values[:3]))
    first(values[3:])
    first(values[:0])
    assert float(first.compute()) == pytest.approx(exponent(metric), rel=1e-6)
    nan = values[:5].clone()
    nan[0] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        metric(nan)
    assert int(metric.compute()["spectrum.n_samples"]) == 403


def test_other_types_of_the_state_change_no_number():
    metric = TorchMetric("spectrum")
    metric.update(data())
    before = exponent(metric)
    for change in (torch.float64, torch.float16, "torch.FloatTensor"):
        assert metric.set_dtype(change) is metric
        assert exponent(metric) == before
    metric.half().double().to("cpu")
    metric.update(data(seed=1))
    assert int(metric.compute()["spectrum.n_samples"]) == 800
    one = TorchMetric("spectrum", value="exponent")
    one.update(data())
    assert one.compute().dtype == torch.float32
    assert one.set_dtype(torch.float64).compute().dtype == torch.float64


def test_wrappers_take_one_number():
    metric = TorchMetric("spectrum", value="exponent")
    boot = BootStrapper(metric, num_bootstraps=4, quantile=torch.tensor([0.05, 0.95]))
    for part in data().split(100):
        boot.update(part)
    low, high = boot.compute()["quantile"].tolist()
    assert 0.5 < low < float(boot.compute()["mean"]) < high < 1.6
    tracker = MetricTracker(TorchMetric("spectrum", value="spectrum.n_samples"), maximize=True)
    for rows in (100, 200, 150):
        tracker.increment()
        tracker.update(data(rows))
    assert tracker.compute_all().tolist() == [100, 200, 150]
    assert tracker.best_metric(return_step=True) == (200, 1)
    metric.update(data())
    for wrong, said in (("expnent", "did you mean"), ("", "no number")):
        other = TorchMetric("spectrum", value=wrong)
        other.update(data())
        with pytest.raises(DataError, match=said):
            other.compute()


def test_plots_are_those_of_stock_metrics():
    from matplotlib import pyplot as plt

    metric = TorchMetric("spectrum")
    metric.update(data())
    figure, axes = metric.plot()
    drawn = [line.get_label() for line in axes.lines]
    headline = [f"spectrum.{name}" for name in pc.metrics.SpectrumResult.headline]
    assert drawn == [name for name in headline if name in metric.compute()]
    assert "spectrum.exponent" in drawn
    assert figure is axes.figure
    several = [metric.compute()] * 3
    assert len(metric.plot(several)[1].lines[0].get_ydata()) == 3
    one = TorchMetric("spectrum", value="exponent")
    one.update(data())
    assert one.plot(ax=axes)[1] is axes
    plt.close("all")


def test_what_is_no_activations_is_refused():
    for values, said in (
        (torch.randint(0, 9, (40, 24)), "token numbers"),
        (torch.ones(40, 24, dtype=torch.bool), "token numbers"),
        (torch.randn(4, 3, 8, 8).softmax(-1), "attention weights"),
        (torch.randn(4, 3, 8, 8).softmax(-1).bfloat16(), "attention weights"),
    ):
        with pytest.raises(DataError, match=said):
            TorchMetric("spectrum").update(values)
        with pytest.raises(DataError, match=said):
            pc.measure({"a": values}, ["spectrum"])
    named = TorchMetric("spectrum", axes=("batch", "channel", "height", "width"))
    named.update(torch.randn(4, 3, 8, 8).softmax(-1))
    assert named._statistics.n_samples("values") == 256


@pytest.mark.parametrize("shape", [(150, 24), (60, 7, 24)])
def test_rows_that_come_again_are_no_new_ones_by_any_way(shape):
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, 25, dtype=torch.float64) ** -0.7
    once = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
    again = once[torch.arange(shape[0]).repeat(3)]
    net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(24, 4).double())
    axes = ("batch", "position", "feature") if len(shape) == 3 else None
    loop, hook = TorchMetric("spectrum"), Spectrum().as_hook()
    with pc.attach(net, "0", Spectrum(), axes=axes) as probe:
        for part in again.split(32):
            loop.update(part)
            hook(part, SimpleNamespace(name="a"))
            net(part)
    found = {
        "measure": pc.measure({"a": again}, Spectrum())["a", "spectrum"],
        "analyze": pc.analyze(net, again, Spectrum(), "0")["0", "spectrum"],
        "rows": pc.analyze(net, list(zip(again, range(len(again)), strict=True)), Spectrum(), "0")[
            "0", "spectrum"
        ],
        "attach": probe.compute()["0", "spectrum"],
        "as_hook": hook.compute()["a"],
        "torchmetrics": loop.results()["spectrum"],
    }
    single = Spectrum().measure(once)
    width = single.interval[1] - single.interval[0]
    for way, result in found.items():
        # Rows are dealt into groups by number or by content: alike but for that chance.
        assert result.effective_samples == pytest.approx(once[..., 0].numel(), rel=0.06), way
        assert result.interval == pytest.approx(single.interval, abs=0.15 * width), way


def test_mistakes_are_sentences():
    with pytest.raises(DataError, match="call update first"):
        TorchMetric("spectrum").results()
    with pytest.raises(pc.PluginError, match="spectrum"):
        TorchMetric("spektrum")
    metric, other = TorchMetric("spectrum"), TorchMetric("capacity")
    metric.update(data())
    other.update(data())
    with pytest.raises(StateError, match="different metrics"):
        metric.merge_state(other)
    with pytest.raises(StateError, match="MeanMetric"):
        metric.merge_state(torchmetrics.MeanMetric())
    with pytest.raises(StateError, match="metric_state"):
        metric.merge_state({"mean": torch.zeros(1)})
    with pytest.raises(StateError, match="damaged"):
        metric.packed = [torch.zeros(100, dtype=torch.uint8)]
    nan = data()
    nan[3, 3] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        metric.update(nan)


def joining(rank: int) -> None:
    """One of three processes, of which the last has no data."""
    dist.init_process_group("gloo")
    metric = TorchMetric("spectrum")
    parts = data().split([150, 250])
    if rank < 2:
        metric.update(parts[rank])
    together = float(metric.compute()["spectrum.exponent"])  # syncs, and unsyncs again
    seen = metric._statistics.n_samples("values")
    tokens = TorchMetric("spectrum")
    for part in list(autoregression(0.8).split(4))[rank::3]:
        tokens.update(part)
    effective = float(tokens.compute()["spectrum.effective_samples"])
    print(json.dumps([together, seen, effective]))
    dist.destroy_process_group()


def test_sync_gives_every_process_the_whole():
    found = [json.loads(one.stdout) for one in forks.together(3, joining)]
    assert [n for _, n, _ in found] == [150, 250, 0]  # each has its own part back
    whole = Spectrum().measure(data()).exponent
    assert [e for e, _, _ in found] == pytest.approx([whole] * 3, rel=1e-9)
    alone = TorchMetric("spectrum")
    alone.update(autoregression(0.8))
    effective = alone.results()["spectrum"].effective_samples
    assert [e for _, _, e in found] == pytest.approx([effective] * 3, rel=1e-6)
    numbered = Spectrum().measure(autoregression(0.8)).effective_samples  # by other groups of rows
    assert effective == pytest.approx(numbered, rel=0.05)


@pytest.mark.parametrize("header", [b"[]", b"{}", b"\xff", b'{"metrics": [], "axes": 3}'])
def test_a_damaged_state_is_refused(header):
    from safetensors.torch import save

    packed = save({"header": torch.frombuffer(bytearray(header), dtype=torch.uint8)})
    state = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    with pytest.raises(StateError, match="is damaged"):
        _unpack_into(Statistics([Spectrum()], [pc.Site("a")]), state)
