"""What an analysis is of: environment, digests, rows."""

from __future__ import annotations

import re

import pytest
import torch
from analysed_network import DATA
from hostile_values import ODD, answer, drawn
from hypothesis import given, settings
from hypothesis import strategies as st

import polycode_plugins as pc
from polycode_plugins.files.provenance import Rows


def test_the_digest_is_of_the_content_and_the_order_not_of_the_batches():
    a = Rows().extended(torch.arange(4), DATA[:4]).extended(torch.arange(4, 9), DATA[4:9])
    b = Rows().extended(torch.arange(9), DATA[:9])
    assert a == b
    assert Rows().extended(torch.arange(9), DATA[:9].flip(0)).digest != b.digest
    changed = DATA[:9].clone()
    changed[3, 3] += 1e-6
    assert Rows().extended(torch.arange(9), changed).digest != b.digest


@settings(max_examples=100, deadline=None)
@given(
    a=st.sets(st.integers(0, 60), min_size=1),
    b=st.sets(st.integers(0, 60), min_size=1),
)
def test_rows_know_exactly_when_they_overlap(a, b):
    def rows(indices: set[int]) -> Rows:
        ordered = torch.tensor(sorted(indices))
        return Rows().extended(ordered, ordered[:, None].float())

    x, y = rows(a), rows(b)
    assert (x.count, y.count) == (len(a), len(b))
    if a & b:
        with pytest.raises(pc.StateError, match="is in both"):
            x.joined(y)
    else:
        joined = x.joined(y)
        assert joined.count == len(a | b)
        assert joined.digest == rows(a | b).digest


@drawn
@given(st.lists(st.lists(st.one_of(st.integers(-3, 40), st.sampled_from(ODD)), max_size=4)))
@pytest.mark.usefixtures("elsewhere")
def test_rows(ranges):
    value = {"ranges": ranges, "digest": "00"}
    rows = answer(lambda: Rows.from_json(value))
    if rows is None:
        return
    assert all(start >= 0 and step >= 1 and count >= 1 for start, step, count in rows.ranges)
    assert answer(lambda: rows.joined(rows)) is None or not ranges


@pytest.mark.parametrize("bad", [[0, 0, 5], [0, -1, 5], [-1, 1, 5], [0, 1, 0], [0, 1, 1.5]])
@pytest.mark.usefixtures("elsewhere")
def test_rows_that_are_none(bad):
    with pytest.raises(pc.StateError, match=re.escape(str(bad))):
        Rows.from_json({"ranges": [bad], "digest": "00"})


@pytest.mark.usefixtures("elsewhere")
def test_far_away_rows_are_compared_without_counting_to_them():
    a = Rows(((0, 10**9 + 7, 10**15),))
    b = Rows(((1, 10**9 + 9, 10**15),))
    with pytest.raises(pc.StateError, match="is in both"):
        a.joined(b)
    assert a.joined(Rows(((1, 10**9 + 7, 10**15),))).count == 2 * 10**15
