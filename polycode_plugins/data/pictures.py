"""Image sources: a folder, CIFAR-10, crops of scikit-learn's two photographs, or a moving dot.

Each is read lazily, image by image, and can be iterated again.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange

from polycode_plugins.data.files import files_in
from polycode_plugins.data.stimuli import MovingDot, moving_dot
from polycode_plugins.errors import DataError
from polycode_plugins.files.content import ContentDigest

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What a folder is searched for."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded. Pillow goes by the content, and runs a program of its own for PostScript."""

MOST_PIXELS = 2**26
"""Of one image, by its header: a file of some kilobytes may ask for the memory of gigabytes."""

PHOTOGRAPH = 427
"""The shorter side of the embedded photographs, in pixels: no crop of them is larger."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One image: its place in the source (from 0), its label if it has one, where it was found.

    `load()` decodes it to an RGB `PIL.Image.Image` and raises `DataError` where it is damaged.
    """

    id: int
    label: int | None
    origin: str
    load: Callable[[], Image]


# (origin, label, stored bytes, decoder)
_Raw = tuple[str, int | None, bytes, Callable[[], "Image"]]


class Pictures:
    """A lazy sequence of `Picture` that can be iterated again; made by `image_pictures`."""

    def __init__(self, name: str, read: Callable[[], Iterator[_Raw]]) -> None:
        self.name = name
        self._read = read
        self._digest: ContentDigest | None = None

    def __iter__(self) -> Iterator[Picture]:
        self._digest = digest = ContentDigest()
        for index, (origin, label, stored, load) in enumerate(self._read()):
            digest.add(stored)
            yield Picture(index, label, origin, load)

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the images that the latest iteration has yielded so far.

        It is that of the stored bytes (a file's content, an array's pixels) in order, and the same
        for every shard. Raises `DataError` before the first iteration.
        """
        if self._digest is None:
            raise DataError(f"{self.name} was not read yet; iterate over it, then ask its digest")
        return self._digest.hexdigest()


def image_pictures(
    source: str | os.PathLike[str] | None = None,
    *,
    size: int | None = None,
    crops: int = 1000,
    seed: int = 0,
    split: str = "test",
    download: bool = False,
) -> Pictures:
    """The images of `source`, lazily.

    `source` is one of
    - `None` or `"embedded"`: `crops` different square crops, `size` pixels wide (64 unless given),
      of the two photographs (427 x 640) that scikit-learn ships, drawn with `seed`;
    - `"cifar10"` or `"cifar10:FOLDER"` (the folder `data` unless given): the `split` `test` or
      `train` of CIFAR-10, labelled, fetched only with `download`;
    - `"moving-dot"`, `"moving-dot:FRAMES"` or `"moving-dot:FRAMES:RADIUS"`: the frames in order
      (100 unless given), `size` pixels wide (64 unless given), of `stimuli.moving_dot` in 8 bits;
    - the path of a folder: its files with one of `SUFFIXES`, hidden ones aside, sorted by path and
      recursively. Where each is in a sub-folder, the first sub-folders are the labels, numbered in
      sorted order.

    A `size` given for CIFAR-10 or a folder scales each image to cover `size` x `size` pixels
    (bilinear) and cuts the centre. Needs the extra `torchvision`.

    Raises `DataError` for a source that does not exist or holds no images, a damaged image, and
    crops that do not fit.
    """
    if size is not None and size < 1:
        raise DataError(f"the image size is {size}, but must be at least 1; give a positive number")
    name = "embedded" if source is None else os.path.expanduser(source)
    if name == "embedded":
        side = 64 if size is None else size
        return Pictures("the embedded photographs", lambda: _crops(side, crops, seed))
    if name == "cifar10" or name.startswith("cifar10:"):
        root = name.partition(":")[2] or "data"
        return Pictures(name, lambda: _fitted(_cifar10(root, split, download), size))
    if name == "moving-dot" or name.startswith("moving-dot:"):
        dot = _dot(name, 64 if size is None else size)
        return Pictures(name, lambda: _moving_dot(dot))
    if os.path.isdir(name):
        return Pictures(f"the folder {name}", lambda: _fitted(_folder(Path(name)), size))
    raise DataError(
        f"this model reads images, and {name!r} is not a folder of them; name one that exists, "
        "'embedded', 'moving-dot', or 'cifar10:FOLDER' (texts go to a language model)"
    )


def _fitted(raw: Iterator[_Raw], size: int | None) -> Iterator[_Raw]:
    for origin, label, stored, load in raw:
        yield origin, label, stored, load if size is None else partial(_fit, load, size)


def _fit(load: Callable[[], Image], size: int) -> Image:
    from PIL import ImageOps

    fitted: Image = ImageOps.fit(load(), (size, size), pillow_module().Resampling.BILINEAR)
    return fitted


def _folder(folder: Path) -> Iterator[_Raw]:
    images = files_in(folder, SUFFIXES, "images")
    labelled = all(len(file.parts) > 1 for file in images)
    classes = sorted({file.parts[0] for file in images}) if labelled else []
    labels = {name: number for number, name in enumerate(classes)}
    for file in images:
        path = folder / file
        try:
            stored = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror}); check its permissions"
            ) from error
        yield str(path), labels.get(file.parts[0]), stored, partial(decoded, stored, path)


def decoded(stored: bytes, path: Path | str) -> Image:
    """The RGB image in stored bytes; `path` is where they are from, for messages.

    Raises:
        DataError: where they are damaged, or have more than 8 bits a channel.
    """
    try:
        with _opened(stored) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(
                    f"its header says {image.width} x {image.height} pixels, and at most "
                    f"{MOST_PIXELS:,} are decoded; scale it down"
                )
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"its pixels have mode {image.mode}, more than 8 bits a channel")
            converted: Image = image.convert("RGB")
            return converted
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise DataError(
            f"{path} cannot be decoded as an 8-bit image ({error}); replace it or leave it out"
        ) from error


def _opened(stored: bytes) -> Image:
    """The header of an image, read; of the size Pillow's own warning would come too late."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Image = pillow_module().open(io.BytesIO(stored), formats=FORMATS)
    return image


def _cifar10(root: str, split: str, download: bool) -> Iterator[_Raw]:
    if split not in ("train", "test"):
        raise DataError(f"CIFAR-10 has no split {split!r}; ask for 'train' or 'test'")
    try:
        from torchvision.datasets import CIFAR10
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise _missing("torchvision", error) from error
    try:
        images = CIFAR10(root, train=split == "train", download=download)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"CIFAR-10 could not be fetched into {root!r} ({error}); check the network and the disk"
            if download
            else f"CIFAR-10 is not in {root!r}, or is damaged there; fetch it (170 MB) with "
            f"torchvision.datasets.CIFAR10({root!r}, download=True), or name the folder that holds "
            "cifar-10-batches-py as cifar10:FOLDER"
        ) from error
    pillow = pillow_module()
    for index, (pixels, label) in enumerate(zip(images.data, images.targets, strict=True)):
        origin = f"cifar10/{split}[{index}]"
        yield origin, int(label), pixels.tobytes(), partial(pillow.fromarray, pixels)


def _crops(size: int, count: int, seed: int) -> Iterator[_Raw]:
    pillow = pillow_module()
    from sklearn.datasets import load_sample_images

    sample = load_sample_images()
    photographs = np.stack(sample.images)  # [photograph, height, width, 3]
    names = [Path(name).name for name in sample.filenames]
    number, height, width = photographs.shape[:3]
    places = number, max(0, height - size + 1), max(0, width - size + 1)
    if not 1 <= count <= np.prod(places):
        raise DataError(
            f"{count} different crops of {size} x {size} pixels were asked for, but the embedded "
            f"photographs ({number} of {height} x {width}) have {np.prod(places)}; ask for another "
            f"number or size, or name a folder of images"
        )
    # Without replacement: a crop that came twice would be counted as two independent samples.
    drawn = np.random.default_rng(seed).choice(np.prod(places), count, replace=False)
    for which, top, left in np.stack(np.unravel_index(drawn, places), axis=1).tolist():
        pixels = photographs[which, top : top + size, left : left + size].copy()
        origin = f"{names[which]}[{top}:{top + size}, {left}:{left + size}]"
        yield origin, None, pixels.tobytes(), partial(pillow.fromarray, pixels)


def _dot(name: str, size: int) -> MovingDot:
    """The stimulus that "moving-dot:FRAMES:RADIUS" names; both numbers may be left out."""
    frames, _, radius = name.partition(":")[2].partition(":")
    try:
        return moving_dot(int(frames or 100), size=size, radius=float(radius) if radius else None)
    except ValueError as error:
        raise DataError(
            f"the image source {name!r} is not moving-dot:FRAMES:RADIUS, a whole number and a "
            "radius in pixels"
        ) from error


def _moving_dot(dot: MovingDot) -> Iterator[_Raw]:
    pillow = pillow_module()
    for index, frame in enumerate(dot.frames):
        levels = rearrange(frame * 255, "colour height width -> height width colour")
        pixels = levels.round().byte().contiguous().numpy()
        yield f"moving-dot[{index}]", None, pixels.tobytes(), partial(pillow.fromarray, pixels)


def pillow_module() -> ModuleType:
    """Pillow's module of images.

    Raises:
        DataError: where it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise _missing("pillow", error) from error
    return Image


def _missing(package: str, error: Exception) -> DataError:
    return DataError(
        f"reading images needs the package '{package}', which cannot be imported ({error}); "
        f"install it with: pip install 'polycode-plugins[torchvision]'"
    )
