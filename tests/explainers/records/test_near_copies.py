"""Near copies of a text are one text."""

from __future__ import annotations

import pytest
from planted import record

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.records.near_copies import NearCopies
from polycode_plugins.explainers.records.protocols import Protocol, split

TEXT = [f"w{i}" for i in range(40)]


@pytest.mark.parametrize(
    ("other", "copy"),
    [
        (TEXT, True),
        ([*TEXT[:-1], "x"], True),  # another end
        (TEXT[12:] + [f"y{i}" for i in range(12)], True),  # a window that begins later
        (TEXT[10:25], True),  # within it
        (["x", *TEXT[5:20], *[f"y{i}" for i in range(24)]], False),  # a phrase of it
        (TEXT[::-1], False),  # the same words in another order
        (TEXT[:3], False),  # too short to be told by shingles, and not equal
    ],
)
def test_a_near_copy_shares_half_of_the_shingles_of_the_shorter(other, copy):
    known = NearCopies()
    assert known.keeps(TEXT)
    assert known.keeps(other) is not copy


def test_near_copies_are_kept_out_of_both_splits_and_others_take_their_place():
    def text(i):
        return [f"{i}-{j}" for j in range(20)]

    protocol = Protocol("four", 4, 2, 0, 2, (0, None, 1), 1, (None, None, 0))
    tops = [record(text(i), range(20), i) for i in range(6)]
    tops[1] = record([*text(0)[:-2], "x", "y"], range(20), 1)
    randoms = [record([*text(5)[3:], "z"], range(18), 10), *(
        record(text(i), range(20), i) for i in range(11, 14)
    )]  # fmt: skip
    made = split("u", "s", "neuron", 1, protocol, top=tops, random=randoms)
    assert [r.document for r in made.explain.top] == [0, 3]
    assert [r.document for r in made.score.top] == [2, 4]
    assert [r.document for r in made.score.random] == [10, 11]  # text 5 is in no split
    alike = [record([*text(0)[:-1], f"x{i}"], range(20), i) for i in range(4)]
    with pytest.raises(DataError, match="one text over and over, or almost"):
        split("u", "s", "neuron", 1, protocol, top=alike, random=alike[:2])
