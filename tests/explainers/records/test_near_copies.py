"""Near copies of a text are one text."""

from __future__ import annotations

import itertools

import pytest
import torch
from planted import NEURONS, Reader, Words, planted_texts, record

import polycode_plugins as pc
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


def copied_texts():
    """Texts of which each has two near copies: with another end, and begun three words later."""
    first = planted_texts(140)
    g = torch.Generator().manual_seed(1)
    ends = torch.randint(NEURONS, 60, (2, 140, 3), generator=g)
    return torch.cat(
        [first, torch.cat([first[:, :-3], ends[0]], 1), torch.cat([first[:, 3:], ends[1]], 1)]
    )


def alike(a, b):
    runs = [{tuple(t[i : i + 5]) for i in range(len(t) - 4)} for t in (a, b)]
    return len(runs[0] & runs[1]) >= 0.5 * min(map(len, runs))


@pytest.mark.parametrize("protocol", ["openai", "marshall-kirchner", "fair"])
def test_no_two_texts_of_a_unit_are_near_copies_in_whatever_role(protocol):
    order = torch.randperm(3 * 140, generator=torch.Generator().manual_seed(2))
    compared = pc.compare(
        Reader(), copied_texts()[order], "read", units=("neuron", "projection"), n_units=NEURONS,
        tokenizer=Words(), protocol=protocol, judge=False,
    )  # fmt: skip
    places = set()
    for unit in compared:
        records = unit.evaluation.records
        parts = (records.explain, records.calibration, records.score)
        found = [r for part in parts for r in part.all()]
        assert len(found) > 5
        assert not any(alike(a.tokens, b.tokens) for a, b in itertools.combinations(found, 2))
        places |= {int(order[r.row]) // 140 for r in found}
    assert places == {0, 1, 2}  # copies stand in for their originals, never beside them
