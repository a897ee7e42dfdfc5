"""Settings of the built-in metrics: what is accepted is also saved, and read again as it was."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_values import ODD, answer, drawn
from hypothesis import given, settings
from hypothesis import strategies as st

import polycode_plugins as pc
from polycode_plugins import plugins
from polycode_plugins.metrics import CKA, MINE, Action, Capacity, Spectrum
from polycode_plugins.metrics.names import (
    describe_metric,
    make_metric,
    make_metrics,
    rebuild_metrics,
)

DATA = torch.randn(400, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
FITS = ("debiased", "huber", "stringer", "alpha-req")
RANKS = (None, (1, None), (11, 500), (np.int64(1), np.int64(9)), [2, None])


# Every value with a meaning of its own that the documentation names, beside the default.
SPECIAL: dict[type[pc.Metric], dict[str, tuple[Any, ...]]] = {
    Spectrum: {
        "label": ("other",),
        "fit": FITS,
        "ranks": RANKS,
        "eigenvectors": (0, 3),
        "positions": ("samples", "features"),
        "precision": ("float64", "float32"),
        "epsilon": (1, 1.35, np.float32(2)),
        "seed": (0, np.int64(7)),
    },
    Capacity: {
        "label": ("other",),
        "step": (None, 1, 0.25),
        "relative_step": (None, 0.5),
        "noise": (None, 0.5),
        "snr": (None, 2),
        "exponent": (None, 0, 1.5),
        "bits": (None, 0, 8),
        "dropout": (None, 0, 0.5, 1),
        "fit": FITS,
        "ranks": RANKS,
        "seed": (7,),
        "positions": ("samples", "features"),
        "precision": ("float64", "float32"),
    },
    Action: {
        "label": ("other",),
        "projections": (2, 1000),
        "dimensions": (1, 3),
        "kind": ("path", "static"),
        "path": (None, "position", "rows"),
        "positions": (None, "samples", "features"),
        "precision": ("float64", "float32"),
        "seed": (2**63,),
    },
    CKA: {
        "label": ("other",),
        "samples": (64, 4096),
        "seed": (7,),
    },
    MINE: {
        "label": ("other",),
        "partner": (None, "label", "input", "blocks.0.hook_resid_pre"),
        "channel": (None, "auto", "gaussian", "quantisation", "dropout"),
        "noise": (0.5, 1),
        "bits": (3,),
        "dims": (1,),
        "partner_dims": (1,),
        "samples": (64,),
        "estimators": (None, ("gaussian",), ("ksg", "mine")),
        "mode": ("corrected", "as_published"),
        "seed": (7,),
    },
}


def test_the_values_are_of_every_setting_of_every_metric():
    assert {kind.name for kind in SPECIAL} == {p.name for p in plugins.find("metrics")}
    for kind, values in SPECIAL.items():
        assert set(values) == {f.name for f in dataclasses.fields(kind)}, kind.name


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        (k, s, v)
        for k, settings in SPECIAL.items()
        for s, values in settings.items()
        for v in values
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else repr(v),
)
def test_every_value_with_a_meaning_is_read_as_it_was_written(kind, setting, value):
    (metric,) = make_metrics([kind(**{setting: value})])
    written = json.loads(json.dumps(describe_metric(metric), allow_nan=False))
    (read,) = rebuild_metrics([written])
    assert read == (metric if not isinstance(value, list) else kind(**{setting: tuple(value)}))


@pytest.mark.parametrize(
    "metric", [Spectrum(fit="huber", ranks=(1, None)), Capacity(ranks=(1, None))]
)
def test_a_run_over_all_ranks_is_loaded_again(metric, tmp_path: Path):
    made = pc.measure({"a": DATA}, [metric])
    made.save(tmp_path / "run")
    read = pc.Analysis.load(tmp_path / "run")
    assert read["a", metric.label].to_dict() == made["a", metric.label].to_dict()
    assert read.statistics.metrics == [metric]


@pytest.mark.parametrize(
    ("metric", "error", "said"),
    [
        (
            lambda: Spectrum(eigenvectors=True),
            pc.StateError,
            "eigenvectors is True and must be int",
        ),
        (lambda: Spectrum(epsilon=math.inf), pc.DataError, "epsilon .*'spectrum' is inf.*finite"),
        (lambda: MINE(noise=math.inf), pc.DataError, "noise of the metric 'mine' is inf"),
    ],
)
def test_what_could_not_be_read_again_is_refused_before_the_work(metric, error, said):
    made = metric()
    with pytest.raises(error, match=said):
        pc.measure({"a": DATA}, [made])


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (
            Spectrum,
            {"fit": "hubert"},
            "the choices are 'debiased', 'huber', 'stringer', 'alpha-req'$",
        ),
        (Capacity, {"positions": "x"}, "the choices are 'samples', 'features'$"),
        (Spectrum, {"seed": 0.5}, "seed is 0.5 and must be int$"),
    ],
)
def test_a_refused_setting_lists_the_choices(kind, settings, said):
    with pytest.raises(pc.PolycodeError, match=said):
        kind.from_options(settings)


NARROW = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
NAMES = ["spectrum", "capacity", "action", "mine"]


@settings(drawn, max_examples=120)
@given(
    name=st.sampled_from(NAMES),
    choice=st.integers(0, 20),
    odd=st.sampled_from([*ODD, "path", "huber", (1, 2), (5, 1), [0.5, 3], "float16", 10**6]),
)
def test_settings_of_metrics(name, choice, odd):
    known = [f for f in make_metric(name).options() if f != "label"]
    field = known[choice % len(known)]
    quick = {"mine": {"estimators": ["gaussian"]}, "action": {"path": "rows", "projections": 4}}
    options = {**quick.get(name, {}), field: odd}
    if field == "projections" and odd == 10**6:
        return  # a right setting that takes long
    metric = answer(lambda: make_metric(name, options))
    if metric is not None and name != "mine":
        answer(lambda: metric.measure(NARROW))
