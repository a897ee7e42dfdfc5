"""Cases: what a plugin is checked with. The author of a plugin writes one, in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from polycode_plugins.adapters.base import Adapter, Batch
from polycode_plugins.data_options import DataOptions
from polycode_plugins.explainers.base import Explainer
from polycode_plugins.metrics.base import Metric

SEED = 20240406


@dataclass(frozen=True)
class AdapterCase:
    """An adapter on a small model, and what is known of that model.

    Attributes:
        make: the adapter on the model, the same weights each time; it is called for every check, so
            cache it where making it is slow.
        data: what its `batches` reads, at least four rows; it is read several times.
        options: how the data is read.
        sites: names or globs of the sites to capture; the adapter's default when None.
        in_place: a site whose tensor the model overwrites after it has fired (an in-place ReLU
            behind it). Without one, that check is skipped; so for the next two.
        repeated: names of the sites that are the calls of one module.
        silent: a site that exists and does not fire on this data.
        truth: the values of some sites on a batch, [batch, ...] as the site's axes say, had by
            other means than the adapter.
        tolerance: largest difference between batch sizes, as a fraction of the largest activation:
            a matrix product over other shapes rounds otherwise.
        expected_failures: names of checks that are known to fail, each with its reason. One that no
            longer fails is reported as a failure, so that the list stays true.
    """

    make: Callable[[], Adapter]
    data: Any = None
    options: DataOptions = field(
        default_factory=lambda: DataOptions(batch_size=4, context=16, limit=7)
    )
    sites: Sequence[str] | str | None = None
    in_place: str | None = None
    repeated: tuple[str, ...] = ()
    silent: str | None = None
    truth: Callable[[Batch], Mapping[str, Tensor]] | None = None
    tolerance: float = 1e-5
    expected_failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownAnswer:
    """Data for which the right result is known by other means.

    Attributes:
        data: [samples, features], or any shape whose axes are usual.
        expected: fields or properties of the result, with their values.
        tolerance: largest relative error; 0 for exactly.
    """

    data: Tensor
    expected: Mapping[str, float | str]
    tolerance: float = 1e-6


@dataclass(frozen=True)
class MetricCase:
    """A metric with settings that make it quick.

    Attributes:
        make: the metric; equal settings each time.
        known: data with known results. Without any, that check is skipped.
        data: float64 [samples, features], what it is tried on; by default 240 samples of width 8
            with a decaying spectrum.
        order_matters: whether the order of the samples is part of the question (a path through
            them). The order in which parts are merged never is.
        tolerance: largest difference between ways to the same result, as a fraction of the largest
            value of each field.
        low_precision_tolerance: the same between half-precision input and its values in float64.
        expected_failures: names of checks that are known to fail, as in `AdapterCase`.
    """

    make: Callable[[], Metric]
    known: Sequence[KnownAnswer] = ()
    data: Tensor = field(default_factory=lambda: decaying())
    order_matters: bool = False
    tolerance: float = 1e-8
    low_precision_tolerance: float = 1e-4
    expected_failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExplainerCase:
    """An explainer with its options.

    Attributes:
        make: the explainer; equal options each time. It must not need what a test does not have (a
            network): give it a backend that answers here.
        expected_failures: names of checks that are known to fail, as in `AdapterCase`.
    """

    make: Callable[[], Explainer]
    expected_failures: Mapping[str, str] = field(default_factory=dict)


Case = AdapterCase | MetricCase | ExplainerCase


def decaying(samples: int = 240, width: int = 8, seed: int = SEED) -> Tensor:
    """float64 [samples, width]: correlated Gaussians, the k-th component of variance 1/k."""
    generator = torch.Generator().manual_seed(seed)
    mixing: Tensor = torch.linalg.qr(
        torch.randn(width, width, generator=generator, dtype=torch.float64)
    )[0]
    scales = torch.arange(1, width + 1, dtype=torch.float64).rsqrt()
    drawn = torch.randn(samples, width, generator=generator, dtype=torch.float64)
    return (drawn * scales) @ mixing
