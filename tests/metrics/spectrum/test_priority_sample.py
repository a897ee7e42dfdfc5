"""The rows that are kept: the large ones for certain, the others in fair proportion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from polycode_plugins.activations import Activations, Tokens
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics.spectrum.priority_sample import KEPT, KeptRow, PrioritySample

AXES = ("batch", "position", "feature")
WIDTH = 12


def stream(rows: int, positions: int = 10, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        rows, positions, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def fed(values: torch.Tensor, size: int = 1000, first: int = 0, **options) -> PrioritySample:
    sample = PrioritySample(**options)
    for start in range(0, len(values), size):
        part = values[start : start + size]
        rows = torch.arange(first + start, first + start + len(part))
        sample.update(Activations(part, AXES, rows=rows, documents=rows // 3))
    return sample


def kept(sample: PrioritySample, values: torch.Tensor):
    return sample.kept(values.reshape(-1, WIDTH).mean(dim=0))


def largest(sample: PrioritySample) -> KeptRow:
    mean = torch.zeros(sample.state()["mean"].shape).double()
    found = sample.kept(mean)
    return found.names[int(found.rows.square().sum(dim=1).argmax())]


def test_large_rows_are_kept_for_certain_and_named():
    values = stream(300)
    places = [(17, 0), (17, 9), (250, 4)]
    for row, position in places:
        values[row, position] += 30.0
    found = kept(fed(values, size=7), values)
    certain = [
        (name.row, *name.place)
        for name, count in zip(found.names, found.counts, strict=True)
        if count == 1 and (name.row, *name.place) in places
    ]
    assert sorted(certain) == places
    (name,) = [n for n in found.names if (n.row, n.place) == (250, (4,))]
    assert name.document == 83
    assert name.token is None
    at = found.names.index(name)
    assert torch.equal(found.values[at], values[250, 4])
    assert torch.allclose(found.rows[at], values[250, 4] - values.reshape(-1, WIDTH).mean(dim=0))


def test_sums_over_all_rows_have_unbiased_estimates():
    errors, sums = [], []
    for seed in range(60):
        values = stream(200, seed=seed) * torch.linspace(0.5, 4, 200).double()[:, None, None]
        found = kept(fed(values, size=50, first=10_000 * seed), values)
        assert len(found.names) == KEPT
        apart = values.reshape(-1, WIDTH) - values.reshape(-1, WIDTH).mean(dim=0)
        true = apart[:, 0].square().sum()
        errors.append(float((found.counts * found.rows[:, 0].square()).sum() / true - 1))
        sums.append(float(found.counts.sum() / 2000 - 1))
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(60)
    assert np.std(errors) < 0.25
    assert abs(np.mean(sums)) < 3 * np.std(sums) / np.sqrt(60)


@pytest.mark.parametrize("numbered", [True, False])
def test_batches_merges_and_states_keep_the_same_rows(numbered):
    values = stream(400)
    values[123, 3] += 20

    def sample(parts) -> PrioritySample:
        total = PrioritySample()
        for start, part in parts:
            rows = torch.arange(start, start + len(part)) if numbered else None
            total.update(Activations(part, AXES, rows=rows))
        return total

    whole = kept(sample([(0, values)]), values)
    small = kept(sample([(i, values[i : i + 3]) for i in range(0, 400, 3)]), values)
    backwards = [(i, values[i : i + 50]) for i in range(350, -1, -50)]
    parts = [sample(backwards[:3]), sample(backwards[3:7]), sample(backwards[7:])]
    joined = PrioritySample()
    for part in parts:
        revived = PrioritySample()
        revived.load_state(load(save(part.state())))
        joined.merge(revived)
    for found in (small, kept(joined, values)):
        assert torch.equal(found.values, whole.values)
        assert torch.allclose(found.counts, whole.counts, rtol=1e-12)
        if numbered:
            assert found.names == whole.names
    assert largest(joined).place == (3,)
    assert joined.n_samples == 4000


@pytest.mark.parametrize("positions", ["samples", "features"])
def test_documents_that_share_a_row_are_told_apart(positions):
    values = stream(40)
    values[17, 8] += 30
    documents = torch.arange(40)[:, None] * 10 + torch.arange(10) // 4
    sample = PrioritySample(positions)
    sample.update(Activations(values, AXES, rows=torch.arange(40), documents=documents))
    first = largest(sample)
    assert first.row == 17
    # A row that is one sample is named by the first of its documents.
    assert first.document == (172 if positions == "samples" else 170)


def test_rows_without_numbers_count_on_after_a_merge():
    a, b = PrioritySample(), PrioritySample()
    first, second = stream(5), stream(4, seed=1)
    second[2, 7] += 50
    a.update(Activations(first, AXES))
    b.update(Activations(second, AXES))
    before = {k: t.clone() for k, t in b.state().items()}
    a.merge(b)
    assert all(torch.equal(t, b.state()[k]) for k, t in before.items())
    name = largest(a)
    assert (name.row, name.place) == (7, (7,))


def test_masked_positions_keep_their_places():
    values = stream(6)
    values[4, 5] += 40
    mask = torch.ones(6, 10, dtype=torch.bool)
    mask[:, :3] = False
    mask[2] = False
    sample = PrioritySample()
    rows = torch.tensor([3, 1, 4, 1, 5, 9])
    sample.update(Activations(values, AXES, mask=mask, rows=rows))
    name = largest(sample)
    assert (name.row, name.place) == (5, (5,))
    assert sample.n_samples == 35


def test_images_have_places_and_rows_have_none():
    values = torch.randn(8, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    values[3, :, 2, 5] += 40
    batch = Activations(values, ("batch", "channel", "height", "width"), rows=torch.arange(8))
    by_place, by_row = PrioritySample(), PrioritySample("features")
    by_place.update(batch)
    by_row.update(batch)
    name = largest(by_place)
    assert (name.row, name.place) == (3, (2, 5))
    name = largest(by_row)
    assert (name.row, name.place) == (3, ())


def test_tokens_come_with_their_texts():
    ids = torch.arange(60).reshape(6, 10)
    values = stream(6)
    values[1, 3] += 40
    text = {13: " the"}
    tokens = Tokens(ids, lambda i: text.get(i, "\0ß" * 40))
    sample = PrioritySample()
    sample.update(Activations(values, AXES, rows=torch.arange(6), tokens=tokens))
    revived = PrioritySample()
    revived.load_state(load(save(sample.state())))
    name = largest(revived)
    assert (name.token, name.text) == (13, " the")
    texts = [one.text for one in revived.kept(torch.zeros(WIDTH).double()).names]
    assert texts.count("ß" * 24) == 59  # 48 bytes, in whole letters
    bare = PrioritySample()
    bare.update(Activations(values, AXES, tokens=dataclasses.replace(tokens, text=None)))
    assert (largest(bare).token, largest(bare).text) == (13, None)


def test_what_does_not_fit_is_refused():
    sample = fed(stream(3))
    with pytest.raises(DataError, match="width 5 follow ones of width 12"):
        sample.update(Activations(torch.ones(2, 5), ("batch", "feature")))
    with pytest.raises(StateError, match="cannot be merged"):
        sample.merge(PrioritySample("features"))
    with pytest.raises(DataError, match="no sample came"):
        PrioritySample().kept(torch.zeros(3))
    state = sample.state()
    nothing = PrioritySample().state()
    for damaged in (nothing | {"counts": state["counts"]}, nothing | {"mean": state["mean"]}):
        with pytest.raises(StateError, match="counts rows and has no mean"):
            PrioritySample().load_state(damaged)
    for name in ("counts", "mean", "uniform", "numbers", "texts"):
        broken = {k: t for k, t in state.items() if k != name}
        with pytest.raises(StateError):
            PrioritySample().load_state(broken)
    for name, value in (
        ("uniform", state["uniform"] * 0),
        ("numbers", state["numbers"][:, :3]),
        ("rows", state["rows"][:, :3]),
        ("texts", state["texts"][:1]),
    ):
        with pytest.raises(StateError):
            PrioritySample().load_state({**state, name: value})
