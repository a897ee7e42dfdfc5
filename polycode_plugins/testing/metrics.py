"""Checks of metrics: the statistics are a monoid, the results are numbers or errors.

They run on `Statistics`, what `pc.analyze` itself fills, with two sites of which the second is a
function of the first, so that metrics of pairs have a partner. Results are compared, not states:
two states may hold the same in other forms.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Site
from polycode_plugins.errors import PolycodeError
from polycode_plugins.metrics.base import Metric, Result
from polycode_plugins.runs.gathering import Statistics
from polycode_plugins.testing.cases import MetricCase
from polycode_plugins.testing.outcome import fail, require, skip

FIRST, SECOND = "first", "second"
_LEFT_OUT = 12  # times that a tenth of the samples is left out
_CHUNKS = (1, 7, 64, 0, 100, 3)  # rows of the first batches; the rest comes in one


def settings_round_trip(case: MetricCase) -> None:
    """The settings are JSON values from which an equal metric is made, and cannot be changed."""
    metric = case.make()
    made = type(metric).from_options(json.loads(json.dumps(metric.options())))
    require(made == metric, f"from_options gives {made!r} for the options of {metric!r}")
    try:
        metric.label = "other"  # type: ignore[misc]
    except dataclasses.FrozenInstanceError:
        return
    fail("a setting can be changed after the metric is made; use @dataclass(frozen=True)")


def known_answers(case: MetricCase) -> None:
    """The result is right where it is known by other means."""
    if not case.known:
        skip("the case gives no known= answers")
    for answer in case.known:
        result = case.make().measure(answer.data)
        for name, value in answer.expected.items():
            found = getattr(result, name)
            if isinstance(value, str) or isinstance(found, str):
                right = found == value
            else:
                error = abs(float(found) - value)
                right = (
                    error <= answer.tolerance * abs(value) if value else error <= answer.tolerance
                )
            require(right, f"{name} is {found!r} and should be {value!r}")


def chunks_equal_one_shot(case: MetricCase) -> None:
    """Data in batches of any size, also of one row and of none that counts, gives one result."""
    _compare(case, _whole(case), _fed(case, _chunked(case)), "in batches")


def merge_is_associative(case: MetricCase) -> None:
    """(a + b) + c and a + (b + c) give the result of the whole."""
    left, right = _parts(case, 3), _parts(case, 3)
    left[0].merge(left[1])
    left[0].merge(left[2])
    right[1].merge(right[2])
    right[0].merge(right[1])
    _compare(case, _whole(case), left[0], "as (a + b) + c")
    _compare(case, _whole(case), right[0], "as a + (b + c)")


def merge_is_commutative(case: MetricCase) -> None:
    """a + b and b + a give the result of the whole."""
    a, b = _parts(case, 2)
    b.merge(a)
    _compare(case, _whole(case), b, "as b + a")


def merge_has_an_identity(case: MetricCase) -> None:
    """Merging with what has seen nothing changes nothing, from either side."""
    fresh, whole = _empty(case), _whole(case)
    whole.merge(_empty(case))
    fresh.merge(_whole(case))
    _compare(case, _whole(case), whole, "merged with nothing")
    _compare(case, _whole(case), fresh, "merged into nothing")


def merge_leaves_the_other(case: MetricCase) -> None:
    """What is merged in stays as it was, also when the sum goes on."""
    a, b = _parts(case, 2)
    before = {k: t.clone() for k, t in b.state().items()}
    a.merge(b)
    a.merge(_parts(case, 2, offset=10_000)[1])
    after = b.state()
    same = before.keys() == after.keys() and all(
        torch.equal(t, after[k]) for k, t in before.items()
    )
    require(same, "merging changes what is merged in")


def order_does_not_matter(case: MetricCase) -> None:
    """The samples in another order give the same result."""
    if case.order_matters:
        skip("the case says that the order of the samples matters")
    order = torch.randperm(len(case.data), generator=torch.Generator().manual_seed(1))
    shuffled = _fed(case, [(case.data[order], order)])
    _compare(case, _whole(case), shuffled, "in another order")


def nothing_is_kept_by_reference(case: MetricCase) -> None:
    """Batches that the model overwrites after they were taken in change nothing."""
    statistics = _empty(case)
    for values, rows in _chunked(case):
        pair = values.clone(), _second(values)
        _feed_pair(statistics, *pair, rows)
        for tensor in pair:
            tensor.fill_(7.0)
    _compare(case, _whole(case), statistics, "after the batches were overwritten")


def state_round_trips(case: MetricCase) -> None:
    """The state survives a safetensors file bit by bit, and goes on as it would have."""
    from safetensors.torch import load, save

    chunks = _chunked(case)
    going, half = _fed(case, chunks[:3]), _fed(case, chunks[:3])
    state = half.state()
    stored = save({k: t.contiguous() for k, t in state.items()})
    revived = _empty(case)
    revived.load_state(load(stored))
    again = revived.state()
    same = state.keys() == again.keys() and all(
        t.dtype == again[k].dtype and torch.equal(t, again[k]) for k, t in state.items()
    )
    require(same, "a state that was saved and loaded is another one")
    for values, rows in chunks[3:]:
        _feed(going, values, rows)
        _feed(revived, values, rows)
    _compare(case, going, revived, "after its state was saved and loaded", tolerance=0.0)


def low_precision_input_is_safe(case: MetricCase) -> None:
    """float16 and bfloat16 input gives what the same values in float64 give."""
    # Squares of these overflow float16, and sums of them lose all digits in bfloat16.
    scaled = 300 * case.data / case.data.abs().max()
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        low = scaled.to(dtype)
        rows = torch.arange(len(low))
        # The second site is made from the rounded values, and rounded like the first.
        other = _second(low.double()).to(dtype)
        ours, wide = _empty(case), _empty(case)
        _feed_pair(ours, low, other, rows)
        _feed_pair(wide, low.double(), other.double(), rows)
        name = str(dtype).removeprefix("torch.")
        _compare(case, wide, ours, f"of {name} input", tolerance=case.low_precision_tolerance)


def constant_input_is_honest(case: MetricCase) -> None:
    """Constant data gives a result or a PolycodeError, never NaN, infinity or a crash."""
    _honest(case, torch.full_like(case.data, 2.5), "constant data")
    _honest(case, torch.zeros_like(case.data), "data of zeros")


def rank_one_input_is_honest(case: MetricCase) -> None:
    """Data on a line gives a result or a PolycodeError, never NaN, infinity or a crash."""
    line = case.data[:, :1] * torch.linspace(1, 2, case.data.shape[1], dtype=case.data.dtype)
    _honest(case, line, "data on a line")


def few_samples_are_honest(case: MetricCase) -> None:
    """No sample, one and two give a result or a PolycodeError, never NaN, infinity or a crash."""
    for n in range(3):
        _honest(case, case.data[:n], f"{n} samples")


def nan_input_is_an_error(case: MetricCase) -> None:
    """NaN or infinity among the activations is a PolycodeError, not a result."""
    for value in (math.nan, math.inf):
        spoilt = case.data.clone()
        spoilt[len(spoilt) // 2, 1] = value
        try:
            found = case.make().measure(spoilt)
        except PolycodeError:
            continue
        except TypeError:  # a metric of two arrays
            continue
        fail(f"{value} among the activations gives {found!r}")


def results_are_json(case: MetricCase) -> None:
    """A result is frozen, and its `to_dict` is JSON that gives the same result again."""
    result = _results(_whole(case))[SECOND]
    fields = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    again = type(result).from_dict(fields).to_dict()
    require(
        json.dumps(again, sort_keys=True) == json.dumps(fields, sort_keys=True),
        "from_dict(to_dict()) is another result",
    )
    for name, value in result.scalars().items():
        require(
            value is None or isinstance(value, bool | int | float | str),
            f"the scalar {name!r} is a {type(value).__name__}",
        )
    field = dataclasses.fields(result)[0].name
    try:
        setattr(result, field, None)
    except dataclasses.FrozenInstanceError:
        return
    fail("a result can be changed; use @dataclass(frozen=True, eq=False)")


def influences_are_what_samples_do(case: MetricCase) -> None:
    """The numbers move with samples that are left out as `Metric.influences` says, by its sign and
    size."""
    whole, metric = _whole(case), case.make()
    samples = _second(case.data).float()
    said = metric.influences(
        whole.accumulators(SECOND, metric.label), whole.compute(SECOND, metric), samples
    ).values
    if not said:
        skip("it says of no number what a sample adds to its error")
    kept = np.random.default_rng(0).random((_LEFT_OUT, len(samples))) > 0.1
    moved: dict[str, list[float]] = {name: [] for name in said}
    for lines in map(torch.from_numpy, kept):
        part = _fed(case, [(case.data[lines], torch.arange(len(case.data))[lines])])
        numbers = part.compute(SECOND, metric).scalars()
        for name, found in moved.items():
            found.append(float(numbers.get(name) or 0.0))
    for name, influence in said.items():
        require(influence.shape == (len(samples),), f"influences on {name!r} are not [samples]")
        expected = np.array([influence[lines].mean() for lines in kept])
        slope = np.cov(expected, moved[name])[0, 1] / max(expected.var(ddof=1), 1e-300)
        require(
            0.5 < slope < 2.0,
            f"{name} moves by {slope:.2g} of what influences say of samples that are left out",
        )


CHECKS: tuple[Callable[[MetricCase], None], ...] = (
    settings_round_trip,
    known_answers,
    chunks_equal_one_shot,
    merge_is_associative,
    merge_is_commutative,
    merge_has_an_identity,
    merge_leaves_the_other,
    order_does_not_matter,
    nothing_is_kept_by_reference,
    state_round_trips,
    low_precision_input_is_safe,
    constant_input_is_honest,
    rank_one_input_is_honest,
    few_samples_are_honest,
    nan_input_is_an_error,
    results_are_json,
    influences_are_what_samples_do,
)

Piece = tuple[Tensor, Tensor]  # values [rows, features] and the rows' indices


def _empty(case: MetricCase) -> Statistics:
    return Statistics([case.make()], [Site(FIRST, 0), Site(SECOND, 1)])


def _second(values: Tensor) -> Tensor:
    """What the second site holds: the first one's values, turned and bent."""
    return torch.tanh(values.flip(-1)) + 0.5 * values


def _feed(statistics: Statistics, values: Tensor, rows: Tensor) -> None:
    _feed_pair(statistics, values, _second(values), rows)


def _feed_pair(statistics: Statistics, first: Tensor, second: Tensor, rows: Tensor) -> None:
    statistics.begin(None)
    mask = None
    if not len(first):  # a batch of which nothing counts
        first, second = first.new_ones(2, first.shape[1]), second.new_ones(2, second.shape[1])
        rows, mask = torch.tensor([10**6, 10**6 + 1]), torch.zeros(2, dtype=torch.bool)
    for name, values in ((FIRST, first), (SECOND, second)):
        statistics.receive(name, Activations(values, ("batch", "feature"), mask=mask, rows=rows))
    statistics.batches += 1


def _fed(case: MetricCase, pieces: Sequence[Piece]) -> Statistics:
    statistics = _empty(case)
    for values, rows in pieces:
        _feed(statistics, values, rows)
    return statistics


def _whole(case: MetricCase) -> Statistics:
    return _fed(case, [(case.data, torch.arange(len(case.data)))])


def _chunked(case: MetricCase) -> list[Piece]:
    sizes = [*_CHUNKS, max(0, len(case.data) - sum(_CHUNKS))]
    return list(
        zip(
            torch.split(case.data[: sum(sizes)], sizes),
            torch.split(torch.arange(len(case.data)), sizes),
            strict=True,
        )
    )


def _parts(case: MetricCase, count: int, offset: int = 0) -> list[Statistics]:
    """The data in `count` unequal runs of rows, each in statistics of its own."""
    n = len(case.data)
    cuts = [0, *(n * (i + 1) // (count + 1) + i for i in range(count - 1)), n]
    rows = torch.arange(n)
    return [_fed(case, [(case.data[a:b], rows[a:b] + offset)]) for a, b in pairwise(cuts)]


def _results(statistics: Statistics) -> dict[str, Result]:
    """The results at the second site, which is never its own partner."""
    (metric,) = statistics.metrics
    return {SECOND: statistics.compute(SECOND, metric)}


def _compare(
    case: MetricCase, a: Statistics, b: Statistics, how: str, tolerance: float | None = None
) -> None:
    allowed = case.tolerance if tolerance is None else tolerance
    for site, result in _results(a).items():
        difference = _difference(result.to_dict(), _results(b)[site].to_dict(), allowed)
        if difference:
            fail(f"the result {how} differs: {difference}")


def _difference(a: Any, b: Any, tolerance: float, path: str = "") -> str | None:
    """Where two results' values differ by more than a fraction of the largest, None if nowhere."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return f"{path or 'fields'} {sorted(a)} and {sorted(b)}"
        found = (_difference(a[k], b[k], tolerance, f"{path}.{k}".lstrip(".")) for k in a)
        return next((f for f in found if f), None)
    x, y = _numbers(a), _numbers(b)
    if x is None or y is None:
        if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            found = (
                _difference(u, v, tolerance, f"{path}[{i}]")
                for i, (u, v) in enumerate(zip(a, b, strict=True))
            )
            return next((f for f in found if f), None)
        return None if a == b else f"{path} is {a!r} and {b!r}"
    if x.shape != y.shape:
        return f"{path} has shape {x.shape} and {y.shape}"
    error = float(np.abs(x - y).max(initial=0.0))
    scale = float(np.abs(x).max(initial=0.0))
    return None if error <= tolerance * scale else f"{path} by {error:.3g}, of {scale:.3g}"


def _numbers(value: Any) -> np.ndarray[Any, Any] | None:
    if isinstance(value, bool | str) or value is None:
        return None
    try:
        made = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return made if bool(np.isfinite(made).all()) else None


def _honest(case: MetricCase, values: Tensor, what: str) -> None:
    metric: Metric = case.make()
    statistics = Statistics([metric], [Site(FIRST, 0), Site(SECOND, 1)])
    try:
        _feed_pair(statistics, values, values, torch.arange(len(values)))
        result = statistics.compute(SECOND, metric)
    except PolycodeError:
        return
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        bad = isinstance(value, float) and not math.isfinite(value)
        require(not bad, f"{what} gives {field.name} = {value}; raise a DataError, or say None")
