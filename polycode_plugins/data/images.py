"""Batches of images for a model, from any of the sources in `pictures`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from polycode_plugins.data.pictures import Picture, Pictures, image_pictures
from polycode_plugins.errors import DataError
from polycode_plugins.files.content import ContentDigest

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """A batch of images.

    `pixels` [batch, 3, height, width], float32: RGB from 0 to 1, or what the transform made of it.
    `labels` [batch], int64, or None where the source has none.
    `rows` [batch], int64: each image's place in the source, the same for any batch size and any
      number of shards.
    """

    pixels: Tensor
    labels: Tensor | None
    rows: Tensor


def image_batches(
    source: Pictures | str | os.PathLike[str] | None = None,
    *,
    transform: Callable[[Image], Tensor] | None = None,
    size: int | None = None,
    batch_size: int = 32,
    limit: int | None = None,
    shard: tuple[int, int] = (0, 1),
    content: ContentDigest | None = None,
    **options: Any,
) -> Iterator[ImageBatch]:
    """The images of `source` (see `image_pictures`, which takes `size` and `options`) in batches.

    `transform` makes a float tensor [3, height, width] of an RGB PIL image, as torchvision's
    `weights.transforms()` do; without one, pixels are scaled to 0..1. `limit` is the number of
    images over all shards; `shard=(rank, world)` keeps the rows that are `rank` modulo `world` and
    decodes no others. The stored bytes and labels of all shards' images are added to `content`.

    Raises `DataError` for arguments out of range and for images that differ in size after the
    transform, which cannot share a batch.
    """
    for name, value in (("batch size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise DataError(
                f"the {name} is {value}, but must be at least 1; give a positive number"
            )
    rank, world = shard
    if not 0 <= rank < world:
        raise DataError(
            f"shard {rank} of {world} does not exist; give a rank from 0 to the world size less 1"
        )
    if isinstance(source, Pictures):
        if size is not None or options:
            given = ", ".join([*(["size"] if size is not None else []), *options])
            raise DataError(
                f"the pictures are already made; give {given} to image_pictures instead"
            )
    else:
        source = image_pictures(source, size=size, **options)
    read: Iterator[Picture] = itertools.islice(source, limit)
    if content is not None:
        read = _noted(read, source, content)
    own = (picture for picture in read if picture.id % world == rank)
    return _batches(own, transform or _to_tensor, batch_size)


def _noted(
    pictures: Iterator[Picture], source: Pictures, content: ContentDigest
) -> Iterator[Picture]:
    """The pictures, each of which is added to `content`."""
    for picture in pictures:
        content.add_value([source.digest(), picture.label])
        yield picture


def _batches(
    pictures: Iterable[Picture], transform: Callable[[Image], Tensor], batch_size: int
) -> Iterator[ImageBatch]:
    first: tuple[str, tuple[int, ...]] | None = None
    pending: list[tuple[Picture, Tensor]] = []

    def batch() -> ImageBatch:
        labels = [picture.label for picture, _ in pending]
        return ImageBatch(
            pixels=torch.stack([pixels for _, pixels in pending]),
            labels=None if None in labels else torch.tensor(labels),
            rows=torch.tensor([picture.id for picture, _ in pending]),
        )

    for picture in pictures:
        pixels = transform(picture.load())
        if not isinstance(pixels, Tensor) or pixels.ndim != 3 or not pixels.is_floating_point():
            made = (
                f"{pixels.dtype} {list(pixels.shape)}"
                if isinstance(pixels, Tensor)
                else type(pixels).__name__
            )
            raise DataError(
                f"the transform made {made} of {picture.origin}, not a float tensor "
                f"[3, height, width]; end it with one that does, e.g. torchvision's ToTensor"
            )
        first = first or (picture.origin, tuple(pixels.shape))
        if tuple(pixels.shape) != first[1]:
            raise DataError(
                f"images differ in size: {first[0]} is {_dimensions(first[1])} and "
                f"{picture.origin} is {_dimensions(tuple(pixels.shape))} (height x width); "
                f"give a size, or a transform that resizes"
            )
        pending.append((picture, pixels.float()))
        if len(pending) == batch_size:
            yield batch()
            pending = []
    if pending:
        yield batch()


def _dimensions(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[2]}"


def _to_tensor(image: Image) -> Tensor:
    levels = torch.from_numpy(np.array(image))
    return rearrange(levels, "height width colour -> colour height width").float() / 255
