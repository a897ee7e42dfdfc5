"""Pictures that people hold: images of Pillow, paths, arrays of pixels, rows of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.data.incoming import Incoming, is_picture
from polycode_plugins.data.pictures import Pictures, decoded, pillow_module
from polycode_plugins.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Raw = tuple[str, int | None, bytes, Callable[[], "Image"]]


def pictures_of(data: Incoming) -> Pictures | None:
    """The pictures in data of that kind, and in arrays of bytes; None for other data.

    Raises:
        DataError: while they are read, for what is no picture.
    """
    items: Any = data.items
    if data.kind == "array" and items.dtype == torch.uint8 and items.dim() in (3, 4):
        return Pictures("the pictures", lambda: _read((pixels, None) for pixels in items))
    if data.kind == "pictures":
        return Pictures("the pictures", lambda: _read(items))
    return None


def _read(items: Iterable[tuple[Any, int | None]]) -> Iterator[Raw]:
    for index, (picture, label) in enumerate(items):
        where = f"picture {index}"
        if isinstance(picture, str | Path):
            path = Path(picture)
            yield str(path), label, *_file(path)
        elif isinstance(picture, Tensor | np.ndarray):
            image = _of_pixels(picture, where)
            yield where, label, _bytes(image), partial(_rgb, image, where)
        elif isinstance(picture, Mapping) and is_picture(picture):
            stored = picture["bytes"]
            if stored is None:
                yield where, label, *_file(Path(picture["path"]))
            else:
                yield where, label, stored, partial(decoded, stored, where)
        elif is_picture(picture):
            yield where, label, _bytes(picture), partial(_rgb, picture, where)
        else:
            raise DataError(
                f"{where} of the data is a {type(picture).__name__}; give images of Pillow, paths "
                "of images, or arrays of bytes"
            )


def _file(path: Path) -> tuple[bytes, Callable[[], Image]]:
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise DataError(f"the picture {str(path)!r} cannot be read ({error.strerror})") from error
    return stored, partial(decoded, stored, path)


def _bytes(image: Any) -> bytes:
    return f"{image.mode}{image.size}".encode() + bytes(image.tobytes())


def _rgb(image: Any, where: str) -> Image:
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{where} has pixels of mode {image.mode}, more than 8 bits a channel; convert it first"
        )
    converted: Image = image.convert("RGB")
    return converted


def _of_pixels(pixels: Any, where: str) -> Any:
    """An image of bytes [height, width], [height, width, 3] or [3, height, width]."""
    array = pixels.detach().cpu().numpy() if isinstance(pixels, Tensor) else pixels
    shape = array.shape
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise DataError(
            f"{where} is an array {shape} of {array.dtype}, and pixels are bytes [height, width, "
            "3], [3, height, width] or [height, width]; tensors of floats go past the transform, "
            "all rows in one tensor or as a data set"
        )
    if array.ndim == 3:
        first, last = shape[0] in (1, 3), shape[2] in (1, 3)
        if first == last:
            raise DataError(
                f"{where} is an array {shape}, and which of its axes holds the colours is not "
                "known; give images of Pillow"
            )
        array = np.moveaxis(array, 0, 2) if first else array
        array = array[:, :, 0] if array.shape[2] == 1 else array
    return pillow_module().fromarray(np.ascontiguousarray(array))
