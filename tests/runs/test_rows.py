"""Runs are resumed and merged with the rows, settings and weights they had, or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins.adapters import Batch
from polycode_plugins.files.provenance import Rows, same_analysis
from polycode_plugins.runs import passes

DATA = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
METRIC = pc.metrics.Spectrum(fit="huber", ranks=(1, 500))


@pytest.fixture(autouse=True)
def checkpoint_after_every_batch(monkeypatch):
    monkeypatch.setattr(passes, "CHECKPOINT_SECONDS", 0.0)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 24), nn.Tanh())


class Cut:
    """Batches of which only the first ones come."""

    def __init__(self, batches: Any, after: int) -> None:
        self.batches, self.after = batches, after

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.batches):
            if number == self.after:
                raise KeyboardInterrupt
            yield batch


def analyzed(data: Any, **options: Any) -> pc.Analysis:
    options = {"metrics": METRIC, "sites": ["1"], **options}
    return pc.analyze(options.pop("model", None) or network(), data, **options)


def resumed(first: Any, second: Any, out: Path, **options: Any) -> pc.Analysis:
    with pytest.raises(KeyboardInterrupt):
        analyzed(Cut(first, 5), out=out)
    return analyzed(Cut(second, 10**9), out=out, **options)


def batches(values: torch.Tensor = DATA, **beside: torch.Tensor) -> list[Batch]:
    parts = {name: value.split(10) for name, value in beside.items()}
    return [
        Batch(x, rows=torch.arange(len(x)), **{name: parts[name][i] for name in parts})
        for i, x in enumerate(values.split(10))
    ]


def test_the_same_rows_go_on_to_the_same_bits(tmp_path: Path):
    whole = analyzed(list(DATA.split(10)))
    made = resumed(DATA.split(10), DATA.split(10), tmp_path)
    for name, tensor in whole.statistics.state().items():
        assert torch.equal(tensor, made.statistics.state()[name])
    for field in ("rows", "batches", "content"):
        assert made.run[field] == whole.run[field]


LABELS, MASK = torch.arange(120) % 3, torch.arange(120) % 7 > 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (DATA.split(10), (DATA + 1e-7).split(10)),
        (DATA.split(10), DATA.flip(0).split(10)),
        (DATA.split(10), DATA[:40].split(10)),
        (batches(labels=LABELS), batches(labels=LABELS.flip(0))),
        (batches(mask=MASK), batches(mask=~MASK)),
        (batches(mask=MASK), batches()),
        (batches(documents=LABELS), batches(documents=LABELS + 1)),
    ],
    ids=[
        "values", "order", "shorter", "labels", "mask", "no mask", "documents",
    ],
)  # fmt: skip
def test_other_rows_are_refused(tmp_path: Path, first, second):
    with pytest.raises(pc.StateError, match=r"50 rows that it has seen are not those that come"):
        resumed(first, second, tmp_path)
    again = analyzed(Cut(first, 10**9), out=tmp_path)  # what was saved is as it was
    assert again.run["rows"]["count"] == 120


def test_what_comes_after_the_rows_that_were_seen_may_differ(tmp_path: Path):
    longer = torch.cat([DATA, DATA[:30] * 2])
    made = resumed(DATA.split(10), longer.split(10), tmp_path)
    whole = analyzed(list(longer.split(10)))
    assert made.run["rows"] == whole.run["rows"]


def test_an_edited_weight_is_refused(tmp_path: Path):
    model = network()
    with torch.no_grad():
        model[0].weight[3, 3] += 1e-4
    with pytest.raises(pc.StateError, match=r"not this one \(model\.fingerprint"):
        resumed(DATA.split(10), DATA.split(10), tmp_path, model=model)


def test_rows_of_a_sequence_first_input_count():
    """[position, batch, feature]: the batch is not the first axis."""
    rows, values = torch.arange(4), torch.randn(7, 4, 5)
    whole = Rows().extended(rows, values)
    for row in range(4):
        other = values.clone()
        other[2, row, 1] += 1
        assert Rows().extended(rows, other).digest != whole.digest
    parts = Rows().extended(rows[:1], values[:, :1]).extended(rows[1:], values[:, 1:])
    assert parts == whole


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"x": DATA[:4], "flag": True}, {"x": DATA[:4], "flag": False}),
        ({"x": DATA[:4]}, {"y": DATA[:4]}),
        (DATA[:4], DATA[:4].numpy() + 1),
        (["a", "b", "c", "d"], ["a", "b", "c", "e"]),
        ((DATA[:4], torch.eye(3)), (DATA[:4], 2 * torch.eye(3))),
        (DATA[:4, :4], DATA[:4, :4].reshape(4, 2, 2)),
        (torch.zeros(4, 2, dtype=torch.bfloat16), torch.zeros(4, 2, dtype=torch.float16)),
    ],
    ids=["flags", "names", "arrays", "texts", "what all rows share", "shapes", "formats"],
)
def test_everything_in_an_input_counts(a, b):
    rows = torch.arange(4)
    assert Rows().extended(rows, a).digest != Rows().extended(rows, b).digest
    assert Rows().extended(rows, a) == Rows().extended(rows, a)


def test_rows_know_which_they_hold():
    rows = Rows(((0, 4, 5), (30, 1, 2)))
    asked = torch.tensor([0, 1, 4, 16, 20, 30, 31, 32])
    assert rows.holds(asked).tolist() == [True, False, True, True, False, True, True, False]


def parts_of(one: Any, two: Any, **options: Any) -> tuple[pc.Analysis, pc.Analysis]:
    return analyzed(one, shard=(0, 2)), analyzed(two, shard=(1, 2), **options)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (DATA, DATA * 7),
        (DATA, DATA.flip(0)),
        (list(DATA.split(10)), list(DATA.flip(0).split(10))),
        (batches(labels=LABELS), batches(labels=LABELS + 1)),
    ],
    ids=["values", "order", "batches", "labels"],
)
def test_parts_of_other_data_are_not_merged(one, two):
    first, second = parts_of(one, two)
    with pytest.raises(pc.StateError, match="the data itself differs"):
        first.merge(second)


def test_parts_of_texts_that_were_edited_are_not_merged(tmp_path: Path):
    path = tmp_path / "texts.jsonl"

    def part(index: int, word: str) -> pc.Analysis:
        lines = [json.dumps({"text": f"{word} {i} of many words " * 9}) for i in range(12)]
        path.write_text("\n".join(lines))
        sites = ["blocks.0.hook_resid_post"]
        return pc.analyze(None, path, METRIC, sites, shard=(index, 2), context=16)

    one, two, other = part(0, "line"), part(1, "line"), part(1, "lime")
    assert one.merge(two).run["rows"]["count"] == one.run["rows"]["count"] * 2
    with pytest.raises(pc.StateError, match="the data itself differs"):
        one.merge(other)


def test_images_and_their_labels_are_the_content(tmp_path: Path):
    from PIL import Image

    from polycode_plugins.data.images import image_batches
    from polycode_plugins.files.content import ContentDigest

    def digest(shard: tuple[int, int] = (0, 1)) -> str:
        found = ContentDigest()
        list(image_batches(str(tmp_path), content=found, shard=shard, limit=3))
        return found.hexdigest()

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (8, 8), (i, 9, 9)).save(tmp_path / name / f"{i}.png")
    whole = digest()
    assert digest((0, 2)) == digest((1, 2)) == whole
    (tmp_path / "b").rename(tmp_path / "c")
    assert digest() == whole  # the label is a number
    Image.new("RGB", (8, 8), (77, 9, 9)).save(tmp_path / "c" / "0.png")
    assert digest() != whole


def test_what_nothing_proves_is_not_merged():
    first, second = parts_of(DATA, DATA)
    assert first.merge(second).run["rows"]["count"] == 120
    old = {"model": {"fingerprint": "d" * 64}}
    with pytest.raises(pc.StateError, match="of format 2 in one and 1 in the other"):
        same_analysis(first.run, {**first.run, **old})
    none = {"model": {"type": "Jax", "fingerprint": None}}
    with pytest.raises(pc.StateError, match="nothing proves that the weights are the same"):
        same_analysis({**first.run, **none}, {**first.run, **none})
    for part in (first, second):
        part.run["content"] = None
    with pytest.raises(pc.StateError, match="nothing proves that both parts are of the same data"):
        first.merge(second)


def test_the_record_of_what_was_merged_tells_all_parts(tmp_path: Path):
    made = [
        analyzed(DATA, shard=(i, 3), command=f"polycode analyze --shard {i}/3", batch_size=8)
        for i in range(3)
    ]
    joined = made[2].merge(made[0]).merge(made[1])
    run = joined.run
    assert run["shards"] == [[0, 3], [1, 3], [2, 3]]
    assert run["batches"] == sum(m.run["batches"] for m in made) == 15
    assert sorted(run["commands"]) == [f"polycode analyze --shard {i}/3" for i in range(3)]
    assert run["parts"] == 3
    assert run["seconds"] == pytest.approx(sum(m.run["seconds"] for m in made))
    assert run["samples"] == {"1": 120}
    joined.save(tmp_path / "run")
    loaded = pc.Analysis.load(tmp_path / "run")
    assert loaded.run["commands"] == run["commands"]
    from polycode_plugins.runs.description import record_text

    assert "shards" in record_text(loaded.run)


def test_the_record_of_what_was_resumed_tells_both_commands(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        analyzed(Cut(DATA.split(10), 5), out=tmp_path, command="first")
    made = analyzed(Cut(DATA.split(10), 99), out=tmp_path, command="second")
    assert made.run["commands"] == ["first", "second"]
    assert made.run["command"] == "second"
    assert made.run["batches"] == 12
