"""Inputs that differ from one another, and where outputs do."""

import pytest
import torch

from polycode_plugins.adapters.evidence.changes import altered, differing, entries, told_apart

FLOATS = torch.ones(2, 3, 4)


def test_repeated_rows_are_told_apart_and_tokens_left_alone():
    apart = told_apart(FLOATS)
    assert len(set(apart.flatten().tolist())) == FLOATS.numel()
    assert (apart - FLOATS).abs().max() <= 0.1
    tokens = torch.ones(2, 3, dtype=torch.int64)
    assert told_apart(tokens) is tokens
    assert told_apart(FLOATS.to("meta")).is_meta


@pytest.mark.parametrize("values", [FLOATS, FLOATS > 0, FLOATS.long(), torch.zeros(2, 3, 4).long()])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_what_is_altered_lies_in_the_middle_of_its_dimension(values, dim):
    before = values.clone()
    changed = altered(values, dim)
    assert torch.equal(values, before)
    assert changed.dtype == values.dtype
    middle = values.shape[dim] // 2
    for index in range(values.shape[dim]):
        same = changed.select(dim, index) == values.select(dim, index)
        assert not same.any() if index == middle else same.all()
    if values.dtype == torch.int64:
        assert int((changed - values).abs().max()) == 1  # tokens that a vocabulary has
        assert int(changed.min()) >= 0


def test_where_two_tensors_differ_is_found_beyond_rounding():
    moved = FLOATS.clone()
    moved[:, 2] += 1e-3
    moved[:, 0] += 1e-8
    assert differing(FLOATS, moved, 1) == {2}
    assert differing(FLOATS, moved, 0) == {0, 1}
    assert differing(FLOATS, moved, 1, noise=1e-2) == set()
    moved[0, 1, 0] = torch.nan  # of both: no difference
    other = FLOATS.clone()
    other[0, 1, 0] = torch.nan
    assert differing(other, moved, 1) == {2}


def test_entries_lie_side_by_side_or_spread():
    assert entries(6, 3, 1) == ({2, 3}, {1, 4})
