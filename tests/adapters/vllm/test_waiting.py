"""Pools of rows whose texts are not whole yet."""

from __future__ import annotations

import random

import pytest
import torch

from polycode_plugins.adapters.vllm.waiting import Waiting, padded
from polycode_plugins.errors import DataError


def test_rows_are_found_again_and_slots_are_used_again():
    waiting = Waiting(2**24)
    values = torch.arange(3000.0)[:, None].repeat(1, 4)
    first = waiting.slots(1000)
    waiting.store("a", values[:1000], torch.tensor(first))
    second = waiting.slots(2000)  # grows
    waiting.store("a", values[1000:], torch.tensor(second))
    assert not set(first) & set(second)
    assert torch.equal(waiting.rows("a", torch.tensor(first + second)), values)
    assert waiting.held == 3000
    size = waiting.nbytes()
    for _ in range(20):  # a long stream takes no more than its widest moment
        waiting.release(second)
        second = waiting.slots(2000)
        waiting.store("a", -values[1000:], torch.tensor(second))
    assert waiting.nbytes() == size
    assert torch.equal(waiting.rows("a", torch.tensor(first)), values[:1000])


def test_more_than_there_is_room_for_is_refused():
    waiting = Waiting(2**16)
    with pytest.raises(DataError, match=r"longest=512 .* waiting=4096"):
        waiting.store("a", torch.zeros(10, 64), torch.tensor(waiting.slots(10)))


def test_a_copy_is_stored():
    waiting = Waiting(2**20)
    values = torch.ones(3, 2)
    slots = torch.tensor(waiting.slots(3))
    waiting.store("a", values, slots)
    values.zero_()
    assert torch.equal(waiting.rows("a", slots), torch.ones(3, 2))


def test_texts_lie_side_by_side_with_little_padding():
    lengths = {7: 3, 2: 100, 5: 4, 9: 98, 1: 1}
    pieces, at = {}, 0
    for number, length in lengths.items():
        pieces[number] = list(range(at, at + length))
        at += length
    batches = padded(pieces)
    seen = {}
    for numbers, slots, mask in batches:
        assert numbers == sorted(numbers)
        assert slots.numel() <= 1.25 * int(mask.sum())
        for number, line, real in zip(numbers, slots, mask, strict=True):
            seen[number] = line[real].tolist()
    assert seen == pieces
    (whole,) = padded(pieces, float("inf"))
    assert whole[0] == [1, 2, 5, 7, 9]
    assert whole[1].shape == (5, 100)


def test_slots_are_one_after_the_other_where_there_is_room_and_never_given_twice():
    draw = random.Random(0)
    waiting, given = Waiting(2**24), []
    for _ in range(400):
        if given and draw.random() < 0.5:
            waiting.release(given.pop(draw.randrange(len(given))))
        else:
            given.append(waiting.slots(draw.randint(1, 300)))
        held = [slot for slots in given for slot in slots]
        assert len(set(held)) == len(held) == waiting.held
    for slots in given:
        draw.shuffle(slots)
        waiting.release(slots)
    assert waiting.held == 0
    everything = waiting.slots(waiting._size)  # of what was let go in pieces
    assert everything == list(range(waiting._size))
    waiting.release(everything[::2])
    pieces = waiting.slots(100)
    assert len(set(pieces)) == 100
    assert set(pieces) <= set(everything[::2])
