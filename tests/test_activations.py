"""What the sites of a batch have in common is computed once, and never taken for another's."""

from __future__ import annotations

import torch

from polycode_plugins.activations import Activations, Site
from polycode_plugins.adapters.base import Batch, Capture

AXES = ("batch", "position", "feature")


def given(batch: Batch | None, *masks: torch.Tensor | None) -> list[Activations]:
    """What the sink gets of one site for each mask."""
    found: list[Activations] = []
    live = Capture([Site("a")], lambda _, read: found.append(read))
    live.batch = batch
    for mask in masks:
        live.receive(Site("a"), torch.ones(3, 2, 4), AXES, mask=mask)
    return found


def counted(reads: list[Activations]) -> tuple[list[torch.Tensor], int]:
    """The places of each, and how often they were computed."""
    times = []

    def places(read: Activations) -> torch.Tensor:
        times.append(1)
        return read.sample_places()

    return [read.once("places", lambda read=read: places(read)) for read in reads], len(times)


def test_sites_of_a_batch_share_what_their_rows_say():
    batch = Batch(torch.zeros(3, 2), rows=torch.arange(3))
    made, times = counted(given(batch, None, None, None))
    assert times == 1
    assert all(places.tolist() == [0, 1, 2, 3, 4, 5] for places in made)


def test_another_mask_is_not_shared():
    batch = Batch(torch.zeros(3, 2), rows=torch.arange(3))
    first = torch.tensor([True, False, True])
    made, times = counted(given(batch, None, first, first.clone(), first))
    assert times == 3
    assert [places.tolist() for places in made] == [[0, 1, 2, 3, 4, 5], *[[0, 1, 4, 5]] * 3]


def test_another_batch_is_not_shared():
    found: list[Activations] = []
    live = Capture([Site("a")], lambda _, read: found.append(read))
    rows = torch.arange(3)
    for _ in range(2):  # the tensors may be the same ones, written over
        live.batch = Batch(torch.zeros(3, 2), rows=rows)
        live.receive(Site("a"), torch.ones(3, 2, 4), AXES)
    assert counted(found)[1] == 2


def test_nothing_is_shared_in_a_workflow_of_others():
    _, times = counted(given(None, None, None))
    assert times == 2
