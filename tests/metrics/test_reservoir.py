"""The reservoir: the same samples for any split, at every site, and pairs that belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polycode_plugins.activations import Activations
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics import Reservoir
from polycode_plugins.metrics.reservoir import aligned

TOKENS = ("batch", "position", "feature")
IMAGE = ("batch", "channel", "height", "width")


def text(rows: torch.Tensor, length: int = 6, width: int = 2) -> torch.Tensor:
    """Values [rows, length, width] that say where they come from: 100 * row + position."""
    values = 100.0 * rows[:, None] + torch.arange(length)
    return values[..., None].expand(-1, -1, width).contiguous()


def masked(rows: torch.Tensor, length: int = 6) -> torch.Tensor:
    """A mask that depends on the row alone and leaves at least one position."""
    return torch.arange(length)[None] <= (rows[:, None] * 7 + 3) % length


def filled(chunks: Any, size: int = 20, seed: int = 3) -> Reservoir:
    reservoir = Reservoir(size, seed, inputs=True)
    for rows in chunks:
        rows = torch.as_tensor(rows)
        reservoir.begin(rows % 5, 3.0 * rows[:, None])
        reservoir.update(Activations(text(rows), TOKENS, mask=masked(rows), rows=rows))
    return reservoir


def same(a: Reservoir, b: Reservoir) -> None:
    one, two = a.state(), b.state()
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


@settings(max_examples=40, deadline=None)
@given(
    st.permutations(range(24)),
    st.lists(st.integers(1, 23), max_size=4, unique=True),
    st.integers(0, 4),
    st.sampled_from([1, 7, 20, 24, 60, 1000]),
)
def test_any_split_order_and_merge_gives_the_same_samples(
    order: list[int], cuts: list[int], merged_from: int, size: int
) -> None:
    chunks = [c for c in np.split(np.array(order), sorted(cuts)) if len(c)]
    whole = filled([range(24)], size)
    first, second = filled(chunks[:merged_from], size), filled(chunks[merged_from:], size)
    restored = first.fresh()
    restored.load_state(first.state())
    second.merge(restored)
    assert second.n_samples == whole.n_samples
    same(second, whole)


def test_what_is_kept_is_what_was_seen_under_its_own_key() -> None:
    chosen, (values, labels, inputs, _) = filled([range(24)], size=1000).samples()
    counts = masked(torch.arange(24)).sum()
    assert len(values) == counts  # everything fits
    assert np.array_equal(values[:, 0].numpy(), 100.0 * chosen.row + chosen.place)
    assert np.array_equal(labels.numpy(), chosen.row % 5)
    assert np.array_equal(inputs[:, 0].numpy(), 3.0 * chosen.row)
    assert len({*zip(chosen.row.tolist(), chosen.place.tolist(), strict=True)}) == counts


def test_every_row_gives_a_sample_before_any_gives_two() -> None:
    chosen, _ = filled([range(24)], size=24).samples()
    assert sorted(chosen.row.tolist()) == list(range(24))
    fewer, _ = filled([range(24)], size=10).samples()
    assert len(set(fewer.row.tolist())) == 10


def test_the_choice_is_uniform_over_rows_and_positions() -> None:
    rows = torch.arange(2000)
    values = text(rows, length=4)
    kept_rows, places = np.zeros(2000), np.zeros(4)
    for seed in range(20):
        reservoir = Reservoir(200, seed)
        reservoir.update(Activations(values, TOKENS, rows=rows))
        chosen = reservoir.samples()[0]
        kept_rows[chosen.row] += 1
        places += np.bincount(chosen.place, minlength=4)
    # 4000 draws: 1000 of each place, binomial; each half of the rows 2000.
    assert np.abs(places - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)
    assert abs(kept_rows[:1000].sum() - 2000) < 5 * np.sqrt(4000 * 0.25)


def test_sites_of_different_width_and_type_keep_the_same_samples() -> None:
    rows = torch.arange(30)
    one, two = Reservoir(50), Reservoir(50)
    for part in rows.split(7):
        one.update(Activations(text(part), TOKENS, rows=part))
        two.update(Activations(text(part, width=5).double(), TOKENS, rows=part))
    x, y, of = aligned(one, two, same_places=True)
    assert len(x) == 50
    assert torch.equal(x[:, 0], y[:, 0])
    assert np.array_equal(of, (x[:, 0] // 100).numpy())


def test_maps_of_different_resolution_are_read_at_corresponding_pixels() -> None:
    """Planted: pixel (i, j) of an 8 x 8 map holds (i, j); the 4 x 4 one (i // 2, j // 2)."""
    rows = torch.arange(40)
    grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"))
    fine = grid.expand(40, 2, 8, 8) + 100 * rows[:, None, None, None]
    coarse = torch.floor(grid[:, ::2, ::2] / 2).expand(40, 2, 4, 4)
    coarse = coarse + 100 * rows[:, None, None, None]
    one, two, vector = Reservoir(400), Reservoir(400), Reservoir(400)
    one.update(Activations(fine, IMAGE, rows=rows))
    two.update(Activations(coarse, IMAGE, rows=rows))
    vector.update(Activations(100.0 * rows[:, None], ("batch", "feature"), rows=rows))
    x, y, of = aligned(one, two)
    offset = 100.0 * torch.as_tensor(of)[:, None]
    assert len(x) > 300
    assert torch.equal(torch.floor((x - offset) / 2), y - offset)
    pairs = torch.cat([x, y], dim=1)
    assert len(torch.unique(pairs, dim=0)) == len(pairs)
    x, y, of = aligned(one, vector)
    assert sorted(of.tolist()) == list(range(40))
    assert torch.equal(torch.floor(x[:, 0] / 100) * 100, y[:, 0])


def test_tokens_at_other_places_are_refused() -> None:
    rows = torch.arange(30)
    one, two = Reservoir(50), Reservoir(50)
    one.update(Activations(text(rows, 6), TOKENS, rows=rows))
    two.update(Activations(text(rows, 9), TOKENS, rows=rows))
    with pytest.raises(DataError, match="different positions"):
        aligned(one, two, same_places=True)


def test_rows_without_numbers_are_counted() -> None:
    parts = [text(torch.arange(4)), text(torch.arange(4, 9))]
    one, whole = Reservoir(12), Reservoir(12)
    for part in parts:
        one.update(Activations(part, TOKENS))
    whole.update(Activations(torch.cat(parts), TOKENS))
    same(one, whole)


def test_rows_without_numbers_that_are_merged_follow_those_that_are_there() -> None:
    def taken(rows: range, size: int, sites: int = 2) -> list[Reservoir]:
        found = []
        for _ in range(sites):
            found.append(Reservoir(size))
            found[-1].update(Activations(text(torch.tensor(rows)), TOKENS))
        return found

    def merged(parts: list[list[Reservoir]]) -> list[Reservoir]:
        first, *others = parts
        for other in others:
            for here, there in zip(first, other, strict=True):
                here.merge(there)
        return first

    pieces = [range(5), range(5, 9), range(9, 17)]
    chosen, samples = merged([taken(p, 1000) for p in pieces])[0].samples()
    assert set(chosen.row.tolist()) == set(range(17))
    assert chosen.row.tolist() == (samples.values[:, 0] // 100).tolist()  # each is where it was

    one, two = merged([taken(p, 12) for p in pieces])  # both sites keep the same samples
    assert [a.tolist() for a in one.samples()[0]] == [a.tolist() for a in two.samples()[0]]
    assert torch.equal(one.samples()[1].values, two.samples()[1].values)
    assert len(one.samples()[0].row) == 12

    numbered, plain = Reservoir(12), taken(range(4), 12, sites=1)[0]
    rows = torch.arange(4)
    numbered.update(Activations(text(rows), TOKENS, rows=rows))
    with pytest.raises(StateError, match="with numbers and of rows without"):
        numbered.merge(plain)


def test_memory_is_bounded_and_the_callers_tensor_is_not_kept() -> None:
    reservoir = Reservoir(10)
    values = torch.zeros(4, 6, 3)
    for start in range(0, 400, 4):
        rows = torch.arange(start, start + 4)
        values.copy_(text(rows, width=3))
        reservoir.update(Activations(values, TOKENS, rows=rows))
        assert sum(len(part.values) for part in reservoir._columns) <= 2 * 10 + 24
    values.fill_(-1)
    assert float(reservoir.samples()[1].values.min()) >= 0


def test_damaged_state_and_changed_width_are_refused() -> None:
    reservoir = filled([range(8)])
    state = reservoir.state()
    with pytest.raises(StateError, match="damaged"):
        Reservoir(20, 3, True).load_state({k: v for k, v in state.items() if k != "keys"})
    with pytest.raises(StateError, match="unequal"):
        Reservoir(20, 3, True).load_state(state | {"labels": state["labels"][1:]})
    rows = torch.arange(8, 10)
    with pytest.raises(DataError, match="width"):
        reservoir.update(Activations(text(rows, width=3), TOKENS, rows=rows))
    with pytest.raises(StateError, match="cannot be merged"):
        reservoir.merge(Reservoir(20, 4, True))
    with pytest.raises(DataError, match="no sample"):
        Reservoir(3).samples()
