"""What the engine's statistics are of, beside plain forward passes of Hugging Face's models."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import polycode_plugins as pc
from polycode_plugins.adapters import DataOptions
from polycode_plugins.metrics import MINE, Action, Capacity, Spectrum
from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.action.first_path import FirstPath
from polycode_plugins.metrics.action.increments import Increments
from polycode_plugins.metrics.reservoir import Reservoir
from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample
from polycode_plugins.metrics.spectrum.rows.groups import RowGroups

pytestmark = [pytest.mark.vllm]

KINDS = ("gpt2", "qwen3")


@lru_cache
def plain(folder: Path) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def close(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    assert found.shape == expected.shape, name
    off = float((found - expected).abs().max() / expected.abs().max())
    assert off < 2e-5, f"{name}: off by {off:.1e} of the largest"


@pytest.mark.parametrize("kind", KINDS)
def test_every_site_holds_what_hugging_face_has_under_its_name(kind, engine, folders):
    from engine_truth import truth

    adapter = engine(folders(kind))
    names = [site.name for site in adapter.sites()]
    assert len(names) > 60
    # Rows of 4 to 70 tokens and steps of 48: chunks, packed texts, and rows next to each other.
    lengths = (70, 4, 33, 48, 49, 12, 60)
    rows = [torch.randint(1, 4000, (n,)).tolist() for n in lengths]
    seen: dict[str, dict[int, torch.Tensor]] = {name: {} for name in names}

    def keep(name, activations):
        for row, values, mask in zip(
            activations.rows.tolist(), activations.values, activations.mask, strict=True
        ):
            seen[name][row] = values[mask].clone()

    from vllm import SamplingParams

    with adapter.capture(adapter.resolve(names, None), keep) as live:
        prompts = [{"prompt_token_ids": row} for row in rows]
        adapter.engine.generate(prompts, SamplingParams(max_tokens=1), use_tqdm=False)
    assert not live.problems
    expected = truth(plain(folders(kind)), rows, names)
    for name in names:
        assert sorted(seen[name]) == list(range(len(rows)))
        for row, values in enumerate(expected):
            close(seen[name][row], values[name], name)


METRICS = (
    Spectrum(),
    Spectrum(positions="samples", fit="huber", ranks=(1, 30), label="huber"),
    Action(projections=20),
    Action(path="position", kind="path", projections=20, label="along"),
    Capacity(),
    MINE(estimators=("gaussian",), samples=512),
)


@pytest.mark.parametrize("kind", KINDS)
def test_results_of_all_metrics_are_those_of_the_same_windows_in_hugging_face(
    kind, engine, folders
):
    adapter = engine(folders(kind))
    block = "transformer.h" if kind == "gpt2" else "model.layers"
    sites = [f"{block}.{i}" for i in range(3)] + [f"{block}.1.mlp"]
    options = {"context": 20, "limit": 60, "batch_size": 7}
    found = pc.analyze(adapter, None, METRICS, sites, **options)
    expected = pc.analyze(folders(kind), None, METRICS, sites, adapter="transformers", **options)
    assert list(found) == list(expected)
    for site in sites:
        assert found.n_samples(site) == expected.n_samples(site)
        for label in found.metrics:
            mine, theirs = (one.statistics.accumulators(site, label) for one in (found, expected))
            for name in mine:
                close_statistics(mine[name], theirs[name], f"{site} {label} {name}")
            same(found[site, label].to_dict(), expected[site, label].to_dict(), f"{site} {label}")
    assert found.run["rows"] == expected.run["rows"]
    assert found.run["content"] == expected.run["content"]


def close_statistics(mine: Any, theirs: Any, where: str) -> None:
    """What was gathered is the same, number by number."""
    assert mine.n_samples == theirs.n_samples, where
    if isinstance(mine, Covariance):
        close(mine.mean(), theirs.mean(), where)
        close(mine.covariance(), theirs.covariance(), where)
    elif isinstance(mine, RowGroups):
        a, b = mine._folded(), theirs._folded()
        assert torch.equal(a._counts, b._counts), where
        close(a._means, b._means, where)
        close(a._scatters, b._scatters, where)
    elif isinstance(mine, PrioritySample):
        a, b = mine.kept(mine._mean), theirs.kept(mine._mean)
        assert set(a.names) == set(b.names), where
        assert any(name.text for name in a.names), where
        close(torch.sort(a.counts).values, torch.sort(b.counts).values, where)
    elif isinstance(mine, Increments):
        assert (mine.n_steps, mine.n_paths) == (theirs.n_steps, theirs.n_paths), where
        close(mine.eigenvalues(), theirs.eigenvalues(), where)
    elif isinstance(mine, FirstPath):
        a, b = (torch.from_numpy(one.points()) for one in (mine, theirs))
        close(a, b, where)
    elif isinstance(mine, Reservoir):
        (a, x), (b, y) = mine.samples(), theirs.samples()
        assert np.array_equal(a.row, b.row), where
        assert np.array_equal(a.place, b.place), where
        close(x.values, y.values, where)
    else:
        raise AssertionError(f"{where}: nobody says how to compare a {type(mine).__name__}")


def same(found: Any, expected: Any, where: str) -> None:
    """The same up to what becomes of differences of 1e-5 in what was gathered: a fit's goodness is
    a small difference of large numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list) and expected and isinstance(expected[0], (dict, list, str)):
        assert len(found) == len(expected), where
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            same(a, b, f"{where}[{i}]")
    elif isinstance(expected, (list, float)) and expected != []:
        a, b = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
        assert a.shape == b.shape, where
        scale = np.nanmax(np.abs(b)) if b.size else 0.0
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4 * scale, err_msg=where)
    else:
        assert found == expected, where


def test_masks_leave_out_special_tokens_and_rows_keep_their_numbers(engine, folders):
    adapter = engine(folders("gpt2"))
    special = adapter.tokenizer.all_special_ids[0]
    tokens = torch.randint(1, 4000, (5, 30))
    tokens[2, 7:9] = special
    tokens[4, 0] = special
    options = DataOptions(batch_size=3)
    theirs = pc.load(folders("gpt2"), "transformers")
    mine = list(adapter.stream(tokens, ["transformer.h.2"], options=options))
    plain = list(theirs.stream(tokens, ["transformer.h.2"], options=options))
    for one, other in zip(mine, plain, strict=True):
        a, b = one["transformer.h.2"], other["transformer.h.2"]
        assert a.rows.tolist() == b.rows.tolist()
        assert torch.equal(a.sample_rows(), b.sample_rows())
        close(a.matrix(), b.matrix(), "masked")
    assert sum(len(one["transformer.h.2"].matrix()) for one in mine) == 150 - 3
