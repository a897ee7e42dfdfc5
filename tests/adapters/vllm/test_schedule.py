"""Rows to requests, chunks in order, and no token twice: with what goes wrong planted."""

from __future__ import annotations

import random

import pytest

from polycode_plugins.adapters.vllm.schedule import (
    Ledger,
    Part,
    asked_name,
    family,
    step_parts,
)
from polycode_plugins.errors import DataError


def test_rows_belong_to_requests_by_what_the_forward_context_says():
    found = step_parts(["a", "b", "c"], [0, 5, 6, 10], [5, 41, 4], 12)
    assert found == [Part("a", 0, 0, 5), Part("b", 40, 5, 1), Part("c", 0, 6, 4)]


@pytest.mark.parametrize(
    ("requests", "starts", "lengths", "rows"),
    [
        (["a", "b"], [0, 5], [5, 1], 6),  # a request without rows
        (["a"], [0, 5], [5], 4),  # more rows than there are
        (["a"], [1, 5], [5], 5),  # rows before the first
        (["a"], [0, 5], [4], 5),  # more rows than tokens
        (["a", "b"], [0, 5, 5], [5, 3], 5),  # none of its rows
        (["a", "a"], [0, 2, 5], [2, 3], 5),  # one request twice
        (["a"], [0, 5], [5, 5], 5),
    ],
)
def test_a_step_whose_numbers_do_not_belong_together_is_refused(requests, starts, lengths, rows):
    with pytest.raises(DataError, match="do not belong together"):
        step_parts(requests, starts, lengths, rows)


def test_chunks_and_decoding_go_on_where_they_were():
    ledger = Ledger()
    assert ledger.new(Part("a", 0, 0, 8)) == Part("a", 0, 0, 8)
    assert ledger.new(Part("a", 8, 3, 2)) == Part("a", 8, 3, 2)
    assert ledger.new(Part("a", 10, 0, 1)) == Part("a", 10, 0, 1)
    assert ledger.repeated == 0


def test_tokens_that_are_computed_again_are_counted_once():
    ledger = Ledger()
    ledger.new(Part("a", 0, 0, 8))
    assert ledger.new(Part("a", 0, 4, 6)) is None  # put off, and begun again in chunks
    assert ledger.new(Part("a", 6, 0, 5)) == Part("a", 8, 2, 3)
    assert ledger.repeated == 8
    assert ledger.seen == {"a": 11}


def test_tokens_that_never_came_are_noticed():
    ledger = Ledger()
    with pytest.raises(DataError, match="16 tokens of a request did not pass"):
        ledger.new(Part("a", 16, 0, 4))  # a prefix cache, or a request under way
    ledger.new(Part("b", 0, 0, 4))
    with pytest.raises(DataError, match="1 tokens"):
        ledger.new(Part("b", 5, 0, 1))


def test_any_schedule_counts_each_token_once():
    draw = random.Random(0)
    for _ in range(200):
        ledger, taken, length, at = Ledger(), [], draw.randint(1, 40), 0
        while at < length:
            count = draw.randint(1, length - at)
            part = ledger.new(Part("a", at, 0, count))
            if part is not None:
                taken += range(part.first, part.first + part.count)
            at = 0 if draw.random() < 0.2 and len(taken) < length else at + count
        assert taken == list(range(length))


def test_the_engine_adds_to_the_names_of_requests():
    assert asked_name("polycode-7-8ed417e4") == "polycode-7"
    assert asked_name("polycode-7") == "polycode-7"
    assert family("0_12-8ed417e4") == family("1_12-8ed417e4") == family("12-8ed417e4")
    assert family("0_12-8ed417e4") != family("0_12-8847078f")
