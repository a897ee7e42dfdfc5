"""The data that people hold, through the adapters: the numbers of the plain form, or a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from capture_helpers import Mean, streamed
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import polycode_plugins as pc
from polycode_plugins.adapters.module import ModuleAdapter
from polycode_plugins.data_options import DataOptions
from polycode_plugins.files.content import ContentDigest

IMAGES = torch.rand(10, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()).eval()


def test_images_however_they_are_held() -> None:
    adapter = ModuleAdapter(network())
    whole = streamed(adapter, IMAGES, "1", batch_size=4)["1"]
    labels = torch.arange(10)
    for data in (
        TensorDataset(IMAGES, labels),
        list(zip(IMAGES, range(10), strict=True)),
        DataLoader(TensorDataset(IMAGES, labels), batch_size=4),
        IMAGES.double().numpy(),
        IMAGES.numpy()[::-1][::-1],
        [IMAGES[:4], IMAGES[:0], IMAGES[4:8], IMAGES[8:]],
        (part for part in IMAGES.split(4)),
        {"input": IMAGES},
        [IMAGES[:4].numpy(), IMAGES[4:].numpy()],
    ):
        torch.testing.assert_close(streamed(adapter, data, "1", batch_size=4)["1"], whole)
    half = ModuleAdapter(network().bfloat16())
    assert streamed(half, IMAGES, "1")["1"].dtype == torch.bfloat16


def test_rows_are_sharded_limited_and_proven_like_arrays() -> None:
    adapter = ModuleAdapter(network())
    rows = TensorDataset(IMAGES, torch.arange(10))
    batches = list(adapter.batches(rows, DataOptions(batch_size=2, limit=9, shard=(1, 2))))
    assert torch.cat([b.rows for b in batches]).tolist() == [1, 3, 5, 7]
    assert torch.cat([b.labels for b in batches]).tolist() == [1, 3, 5, 7]
    digests = []
    for shard in ((0, 1), (0, 2), (1, 2)):
        content = ContentDigest()
        list(adapter.batches(rows, DataOptions(shard=shard, content=content)))
        digests.append(content.hexdigest())
    assert len(set(digests)) == 1


def test_what_a_model_does_not_run_on_is_a_sentence() -> None:
    levels = (IMAGES * 255).to(torch.uint8)
    picture = Image.new("RGB", (12, 12))
    for data, said in (
        (levels, r"does not run on the data, torch.uint8 .*data.float\(\) / 255"),
        (torch.rand(4, 5, 12, 12), "does not run on the data"),
        (["a text"], "yields strings"),
        ([picture], "are pictures, and nothing tells how"),
        ([IMAGES[:0]], "no row"),
        ([(IMAGES, IMAGES, IMAGES)], "3 parts is ambiguous"),
    ):
        with pytest.raises(pc.PolycodeError, match=said):
            pc.analyze(network(), data, Mean(), "1")


def test_pictures_go_through_the_transform_of_the_model(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    from polycode_plugins.adapters.torchvision import TorchvisionAdapter

    def transform(image: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 50

    adapter = TorchvisionAdapter(network(), transform=transform)
    levels = (IMAGES * 255).to(torch.uint8)
    prepared = levels.float() / 50
    whole = streamed(adapter, prepared, "1")["1"]
    images = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in levels]
    for index, image in enumerate(images):
        image.save(tmp_path / f"{index}.png")
    for data in (
        images,
        [(image, 1) for image in images],
        [tmp_path / f"{index}.png" for index in range(10)],
        levels,
        levels.permute(0, 2, 3, 1).numpy(),
        list(prepared),
        TensorDataset(prepared, torch.arange(10)),
        TensorDataset(levels, torch.arange(10)),
    ):
        torch.testing.assert_close(streamed(adapter, data, "1")["1"], whole)
    (batch,) = adapter.batches([(image, 3) for image in images], DataOptions())
    assert batch.labels.tolist() == [3] * 10


def test_texts_however_they_are_held() -> None:
    datasets = pytest.importorskip("datasets")
    texts = [f"Return the number of words in text {i}." for i in range(30)]
    adapter = pc.load(None)
    site = "blocks.0.hook_resid_post"
    options = {"limit": 8, "context": 12, "batch_size": 4}
    whole = streamed(adapter, texts, site, **options)[site]
    tokens = adapter.tokenizer(texts[:8], add_special_tokens=False)
    for data in (
        datasets.Dataset.from_dict({"text": texts}),
        np.array(texts),
        (text for text in texts),
        DataLoader(texts, batch_size=7),
    ):
        assert torch.equal(streamed(adapter, data, site, **options)[site], whole)
    counted = sum(len(ids) for ids in tokens["input_ids"])
    for data in (tokens, datasets.Dataset.from_dict(dict(tokens)), tokens["input_ids"]):
        assert len(streamed(adapter, data, site)[site]) == counted
    with pytest.raises(pc.DataError, match="reads texts, and the data are pictures"):
        streamed(adapter, [Image.new("RGB", (4, 4))], site)
