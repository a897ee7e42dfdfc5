"""Data that people hold: told by what the first item is, or one sentence."""

from __future__ import annotations

from collections import UserDict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from polycode_plugins.data.collation import collated
from polycode_plugins.data.incoming import incoming
from polycode_plugins.data.picture_rows import pictures_of
from polycode_plugins.errors import DataError

TEXTS = ["the first", "a second text", "and one more"]
TALK = [{"role": "user", "content": "hello"}]
IMAGES = torch.rand(6, 3, 4, 5)


class Rows(Dataset):
    """A data set with places alone, as most of torch's are."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index % len(self.items)]  # never an IndexError


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(TEXTS)


def held() -> dict[str, Any]:
    data = datasets.Dataset.from_dict({"text": TEXTS, "id": [1, 2, 3]})
    return {
        "list": TEXTS,
        "tuple": tuple(TEXTS),
        "generator": (t for t in TEXTS),
        "numpy": np.array(TEXTS),
        "numpy objects": np.array(TEXTS, dtype=object),
        "series": pd.Series(TEXTS),
        "data frame": pd.DataFrame({"id": [1, 2, 3], "text": TEXTS}),
        "Hugging Face": data,
        "a column": data["text"],
        "a stream of Hugging Face": data.to_iterable_dataset(),
        "numpy rows": data.with_format("numpy"),
        "dicts": [{"text": t} for t in TEXTS],
        "columns": {"text": TEXTS, "id": [1, 2, 3]},
        "torch data set": Rows(TEXTS),
        "torch stream": Stream(),
        "labelled": Rows([(t, i) for i, t in enumerate(TEXTS)]),
        "labels first": [(i, t) for i, t in enumerate(TEXTS)],
        "loader": DataLoader(TEXTS, batch_size=2),
        "loader of dicts": DataLoader([{"text": t} for t in TEXTS], batch_size=2),
        "loader of pairs": DataLoader([(t, i) for i, t in enumerate(TEXTS)], batch_size=2),
        "loader without batches": DataLoader(TEXTS, batch_size=None),
    }


@pytest.mark.parametrize("kind", list(held()))
def test_texts(kind: str) -> None:
    found = incoming(held()[kind])
    assert found.kind == "texts"
    assert list(found.items) == TEXTS
    if "generator" not in kind:
        assert list(found.items) == TEXTS  # again


def test_conversations_and_other_fields() -> None:
    for data in ([TALK, TALK], [{"messages": TALK}] * 2, datasets.Dataset.from_list(
        [{"messages": TALK}] * 2
    )):  # fmt: skip
        found = incoming(data)
        assert found.kind == "texts"
        assert list(found.items) == [TALK, TALK]
    assert list(incoming([{"body": "x"}], text_field="body").items) == ["x"]


def test_tokens_are_rows_of_their_own_length() -> None:
    ids = [[1, 2, 3], [4, 5]]
    frame = datasets.Dataset.from_dict({"input_ids": ids, "text": ["a", "b"], "label": [1, 0]})
    columns = UserDict({"input_ids": ids, "attention_mask": [[1, 1, 1], [1, 1]]})
    for data in (ids, frame.remove_columns("text"), columns, [{"input_ids": row} for row in ids]):
        found = incoming(data)
        assert found.kind == "rows"
        inputs, labels = collated(list(found.items), 0)
        assert inputs["input_ids"].tolist() == [[1, 2, 3], [4, 5, 0]]
        assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert labels is None
    assert collated(list(frame.remove_columns("text")), 0)[1].tolist() == [1, 0]
    whole = incoming(UserDict({"input_ids": torch.ones(4, 5).long()}))
    assert whole.kind == "columns"
    assert whole.items["input_ids"].shape == (4, 5)
    assert incoming([{"input_ids": torch.ones(4, 5).long()}]).kind == "batches"


def test_tensors_in_rows_batches_and_wholes() -> None:
    labels = torch.arange(6)
    for data in (IMAGES, IMAGES.numpy(), IMAGES.double().numpy()[::-1], pd.DataFrame(np.eye(3))):
        assert incoming(data).kind == "array"
    frozen = IMAGES.numpy().copy()
    frozen.flags.writeable = False
    assert incoming(frozen).kind == "array"
    rows = (
        TensorDataset(IMAGES, labels),
        TensorDataset(IMAGES),
        list(zip(IMAGES, range(6), strict=True)),
        list(zip(IMAGES, labels, strict=True)),
        Rows(list(IMAGES)),
        [torch.ones(4)] * 3,
        [[0.1, 0.2], [0.3, 0.4]],
        [np.ones(4)] * 3,
    )
    for data in rows:
        assert incoming(data).kind == "rows", data
    inputs, found = collated(list(incoming(rows[0]).items), 0)
    assert torch.equal(inputs, IMAGES)
    assert torch.equal(found, labels)
    batches = (
        DataLoader(TensorDataset(IMAGES, labels), batch_size=2),
        DataLoader(IMAGES, batch_size=2),
        [IMAGES[:2], IMAGES[2:]],
        [(IMAGES, labels)],
        (part for part in IMAGES.split(2)),
    )
    for data in batches:
        assert incoming(data).kind == "batches", data
    assert incoming(list(IMAGES), images=True).kind == "rows"


def test_pictures(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 255, (3, 8, 9, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in levels]
    paths = []
    for index, image in enumerate(images):
        paths.append(tmp_path / f"{index}.png")
        image.save(paths[-1])
    kept = datasets.Dataset.from_dict({"image": list(map(str, paths)), "label": [2, 1, 0]})
    kept = kept.cast_column("image", datasets.Image())
    raw = kept.cast_column("image", datasets.Image(decode=False))
    pixels = torch.from_numpy(levels)
    for data, labels in {
        "images": (images, None),
        "paths": (paths, None),
        "names": (list(map(str, paths)), None),
        "labelled": ([(image, 2 - i) for i, image in enumerate(images)], [2, 1, 0]),
        "data set": (Rows([(image, 2 - i) for i, image in enumerate(images)]), [2, 1, 0]),
        "Hugging Face": (kept, [2, 1, 0]),
        "not decoded": (raw, [2, 1, 0]),
        "bytes": (pixels, None),
        "bytes, colours first": (pixels.permute(0, 3, 1, 2), None),
        "arrays": (list(levels), None),
        "labelled arrays": (list(zip(levels, [2, 1, 0], strict=True)), [2, 1, 0]),
    }.values():
        pictures = pictures_of(incoming(data, images=True))
        assert pictures is not None
        for _ in range(2):
            found = list(pictures)
            assert [p.label for p in found] == (labels or [None] * 3)
            for picture, expected in zip(found, levels, strict=True):
                assert np.array_equal(np.asarray(picture.load()), expected)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (3, "this is a int"),
        ([], "no row"),
        (b"text", "this is a bytes"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": TEXTS})}), "'train'"),
        (pd.DataFrame({"txt": TEXTS}), "no column 'text' .*did you mean 'txt'"),
        (datasets.Dataset.from_dict({"body": TEXTS}), "no field 'text' .*body"),
        ([("one text", "another")], "which of the two"),
        ({"x": torch.ones(3), "y": torch.ones(4)}, "as many rows"),
        ({"x": torch.ones(3), "y": "words"}, "'y': str"),
        (np.array([1], dtype="datetime64[s]"), "neither numbers nor texts"),
    ],
)
def test_what_cannot_be_taken_is_one_sentence(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        incoming(data)


def test_rows_that_do_not_fit_are_named() -> None:
    for rows, said in (
        ([torch.ones(3), torch.ones(4)], r"row 7 has shape \(3,\) and row 8 \(4,\)"),
        ([{"x": torch.ones(3)}, {"y": torch.ones(3)}], "row 8 has no 'x'"),
        ([{"x": torch.ones(3)}, torch.ones(3)], "row 8 is a Tensor"),
        ([{"x": "words"}], "column 'x' holds no numbers"),
        ([object()], "row 7 of the data is a object"),
    ):
        with pytest.raises(DataError, match=said):
            collated(rows, 7)
    odd = np.zeros((4, 3, 3), dtype=np.uint8)[:3]
    for array, said in ((odd, "which of its axes holds the colours"), (odd * 1.0, "float64")):
        pictures = pictures_of(incoming([(Image.new("RGB", (2, 2)), 0), (array, 1)], images=True))
        assert pictures is not None
        with pytest.raises(DataError, match=said):
            list(pictures)
    with pytest.raises(DataError, match="cannot be read"):
        list(pictures_of(incoming(["no such.png"], images=True)) or ())
