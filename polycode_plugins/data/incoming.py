"""What people hold as data, told by what its first item is: texts, pictures, rows, batches, arrays.

Data sets of Hugging Face and their columns, torch's data sets and loaders, pandas, numpy, lists,
generators and mappings of columns all become one of five kinds, each lazy. Where an item may be one
row or a batch of them, the container decides: a data set holds rows, a loader batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from polycode_plugins.devices import as_found, modes
from polycode_plugins.errors import DataError, near

Kind = Literal["array", "columns", "texts", "pictures", "rows", "batches"]

TOKENS = "input_ids"
LABELS = ("labels", "label")
_RESTS = ("img", "image", "pixel_values")  # what data sets call a picture


@dataclass(frozen=True)
class Incoming:
    """Data of one kind.

    Attributes:
        kind: "array", one tensor of all rows; "columns", a mapping of them; "texts", strings or
            conversations; "pictures", (picture or path, label or None); "rows", each of which is a
            tensor, (tensor, label) or a mapping; "batches", as a loader yields them.
        items: the tensor, the mapping, or an iterable of the items.
    """

    kind: Kind
    items: Any


def incoming(data: Any, *, text_field: str = "text", images: bool = False) -> Incoming:
    """What `data` holds, without reading more of it than the first item.

    Args:
        data: anything but None and the name or path of a source, which adapters know themselves.
        text_field: the field, column or key that holds a text.
        images: whether the model reads images [batch, channel, height, width]: a tensor of three
            axes is then one, and strings are paths of images.

    Raises:
        DataError: for what is no data, or may be read in two ways.
    """
    if isinstance(data, Tensor):
        return Incoming("array", data)
    library = type(data).__module__.partition(".")[0]
    if isinstance(data, np.ndarray):
        data = _numbers(data)
        if isinstance(data, Tensor):
            return Incoming("array", data)
    elif library in ("pandas", "polars"):
        data = _table(data, text_field)
        if isinstance(data, Tensor):
            return Incoming("array", data)
    elif library == "datasets" and isinstance(data, Mapping):
        splits = ", ".join(map(repr, data))
        raise DataError(f"the data are the splits {splits} of a data set; give one of them")
    elif isinstance(data, Mapping):
        return _columns(data, text_field)
    if isinstance(data, str | bytes) or not (isinstance(data, Iterable) or _indexed(data)):
        raise DataError(
            f"data are texts, pictures, tensors, or an iterable of rows or batches such as a data "
            f"set or a DataLoader, and this is a {type(data).__name__}"
        )
    items = _Again(data)
    first = items.first()
    if first is None:
        raise DataError("the data holds no row and no batch; check the path or the DataLoader")
    whole = isinstance(data, DataLoader) and data.batch_size is None and data.batch_sampler is None
    loader = isinstance(data, DataLoader) and not whole
    rows = whole or library == "datasets" or isinstance(data, Dataset) or not _iterable(data)
    kind = _kind_of(first, text_field, loader=loader, rows=rows, images=images)
    if kind == "texts":
        return Incoming("texts", _Mapped(items, _Texts(text_field, loader)))
    if kind == "pictures":
        return Incoming("pictures", _Mapped(items, _picture))
    return Incoming(kind, items)


# -- containers ----------------------------------------------------------------------------------


class _Again:
    """The items of a container; the first one of an iterator is read once and given again."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._iterator = iter(data) if isinstance(data, Iterator) else None
        self._ahead: list[Any] = []

    def first(self) -> Any:
        """The first item; None where there is none."""
        if self._iterator is not None:
            self._ahead = list(itertools.islice(_as_made(self._iterator), 1))
            return self._ahead[0] if self._ahead else None
        return next(iter(self), None)

    def __iter__(self) -> Iterator[Any]:
        if self._iterator is not None:
            ahead, self._ahead = self._ahead, []
            return itertools.chain(ahead, _as_made(self._iterator))
        if _iterable(self._data):
            return _as_made(self._data)
        return _as_made(self._data[index] for index in range(len(self._data)))


def _as_made(items: Iterable[Any]) -> Iterator[Any]:
    """The items, made with the default device that was set: a loader may draw its order there."""
    return _with_default(items) if modes() else iter(items)


def _with_default(items: Iterable[Any]) -> Iterator[Any]:
    with as_found():
        iterator = iter(items)
    while True:
        with as_found():
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


class _Mapped:
    """What a function makes of each item, zero or more things; to be iterated as often as they."""

    def __init__(self, items: Iterable[Any], make: Any) -> None:
        self._items = items
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        for index, item in enumerate(self._items):
            yield from self._make(item, index)


def _iterable(data: Any) -> bool:
    # A Dataset of torch with places only ends by an IndexError, which not each of them raises.
    return isinstance(data, Iterable) and not (
        isinstance(data, Dataset) and not isinstance(data, IterableDataset) and _indexed(data)
    )


def _indexed(data: Any) -> bool:
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _numbers(array: np.ndarray[Any, Any]) -> Any:
    """A tensor of the numbers of an array, which need not be in order or writable; else a list."""
    if array.dtype.kind in "UO":
        return array.tolist()
    try:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except ValueError:  # strides below 0
        return torch.from_numpy(array.copy())
    except TypeError as error:
        raise DataError(
            f"the data are an array of {array.dtype}, which is neither numbers nor texts"
        ) from error


def _table(data: Any, text_field: str) -> Any:
    """The texts or numbers of a data frame or of one of its columns."""
    columns = getattr(data, "columns", None)
    if columns is None:
        values = data.to_numpy()
        return values.tolist() if values.dtype.kind in "UO" else _numbers(values)
    names = [str(name) for name in columns]
    if text_field in names:
        return _table(data[text_field], text_field)
    values = data.to_numpy()
    if values.dtype.kind in "biuf":
        return _numbers(values)
    raise DataError(
        f"the data frame has no column {text_field!r} (its columns: {', '.join(names)})"
        f"{near(text_field, names)}; name the column that holds the text (text_field=), or give "
        "numbers alone"
    )


def _columns(data: Mapping[Any, Any], text_field: str) -> Incoming:
    """A mapping of columns: of a tokenizer's output, of a data set as dict."""
    column = data.get(text_field)
    if isinstance(column, list | tuple) and column and isinstance(column[0], str):
        return Incoming("texts", list(column))
    tokens = data.get(TOKENS)
    if isinstance(tokens, list | tuple) and tokens and isinstance(tokens[0], list | tuple):
        names = [n for n, v in data.items() if isinstance(v, list | tuple)]
        whole = [data[name] for name in names]
        return Incoming("rows", [dict(zip(names, row, strict=True)) for row in zip(*whole)])  # noqa: B905
    found = {
        str(name): torch.as_tensor(value)
        for name, value in data.items()
        if isinstance(value, Tensor)
        or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf")
    }
    sizes = {len(value) for value in found.values() if value.dim()}
    if len(found) < len(data) or len(sizes) != 1 or any(not v.dim() for v in found.values()):
        raise DataError(
            f"a mapping of data holds columns, tensors with as many rows each, and this one has "
            f"{_shapes(data)}; give tensors, or an iterable of batches"
        )
    return Incoming("columns", found)


def _shapes(data: Mapping[Any, Any]) -> str:
    shown = []
    for name, value in list(data.items())[:6]:
        shape = getattr(value, "shape", None)
        shown.append(f"{name!r}: {type(value).__name__ if shape is None else tuple(shape)}")
    return ", ".join(shown) or "nothing"


# -- items ---------------------------------------------------------------------------------------


def _kind_of(item: Any, field: str, *, loader: bool, rows: bool, images: bool) -> Kind:
    """The kind of data whose first item this is."""
    if isinstance(item, str):
        return "pictures" if images else "texts"
    if isinstance(item, Path) or is_picture(item):
        return "pictures"
    if is_conversation(item):
        return "texts"
    if isinstance(item, Mapping):
        return _kind_of_mapping(item, field, loader=loader, rows=rows)
    if isinstance(item, list | tuple) and item:
        return _kind_of_parts(item, loader=loader, rows=rows, images=images)
    if isinstance(item, Tensor | np.ndarray):
        if images and item.dtype in (torch.uint8, np.uint8) and item.ndim < 4 and not loader:
            return "pictures"
        own = item.ndim == 1 or (images and item.ndim == 3)
        return "rows" if (rows or own) and not loader else "batches"
    return "batches"


def _kind_of_mapping(item: Mapping[Any, Any], field: str, *, loader: bool, rows: bool) -> Kind:
    text = item.get(field, item.get("messages") if field == "text" else None)
    if isinstance(text, str) or is_conversation(text):
        return "texts"
    if loader and isinstance(text, list | tuple) and text and isinstance(text[0], str):
        return "texts"
    if any(is_picture(value) for value in item.values()):
        return "pictures"
    tokens = item.get(TOKENS)
    flat = isinstance(tokens, list | tuple) and bool(tokens) and isinstance(tokens[0], Number)
    if flat or (tokens is not None and getattr(tokens, "ndim", 2) == 1):
        return "rows"
    if rows and any(isinstance(v, str) for v in item.values()) and tokens is None:
        names = [str(name) for name in item]
        raise DataError(
            f"the rows have no field {field!r} (fields: {', '.join(sorted(names))})"
            f"{near(field, names)}; name the field that holds the text (text_field=), or keep the "
            "columns of numbers alone"
        )
    return "rows" if rows else "batches"


def _kind_of_parts(item: Sequence[Any], *, loader: bool, rows: bool, images: bool) -> Kind:
    """Of a list or tuple: a row with its label, a batch with its labels, or a row of numbers."""
    first = item[0]
    texts = [part for part in item if isinstance(part, str)]
    if loader and (len(texts) == len(item) or _strings(item)):
        return "texts"
    if texts and len(item) == 2:
        if len(texts) == 2:
            raise DataError(
                f"the first item is {tuple(item)!r:.120}, and which of the two is the text is not "
                "known; give the texts alone"
            )
        return "pictures" if images else "texts"
    if is_picture(first) or isinstance(first, Path):
        return "pictures"
    if all(isinstance(part, Number) for part in item):
        return "rows"
    if loader or not isinstance(first, Tensor | np.ndarray):
        return "batches"
    label = item[1] if len(item) > 1 else None
    if len(item) == 2 and (isinstance(label, Number) or getattr(label, "ndim", 1) == 0):
        pixels = images and first.dtype in (torch.uint8, np.uint8) and first.ndim < 4
        return "pictures" if pixels else "rows"
    if not rows:
        return "batches"
    return "pictures" if images and first.dtype in (torch.uint8, np.uint8) else "rows"


def _strings(parts: Sequence[Any]) -> bool:
    """Whether one of the parts is the texts of a batch."""
    return any(
        isinstance(part, list | tuple) and part and isinstance(part[0], str) for part in parts
    )


def is_conversation(value: object) -> bool:
    """Whether `value` is a list of messages, to judge by the first: a mapping with a `role`."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and len(value) > 0
        and isinstance(value[0], Mapping)
        and "role" in value[0]
    )


def is_picture(value: Any) -> bool:
    """Whether a value is an image of Pillow, or one that `datasets` has not decoded."""
    if type(value).__module__.partition(".")[0] == "PIL":
        return hasattr(value, "convert")
    if isinstance(value, Mapping):
        return set(value) == {"bytes", "path"}
    return any(c.__module__.startswith("PIL.") for c in type(value).__mro__)


class _Texts:
    """The texts in an item."""

    def __init__(self, field: str, loader: bool) -> None:
        self._field = field
        self._loader = loader

    def __call__(self, item: Any, index: int) -> Iterable[Any]:
        """Strings and conversations: one of a row, several of a batch."""
        if isinstance(item, Mapping):
            return self._of_mapping(item, index)
        if isinstance(item, str) or is_conversation(item) or not isinstance(item, list | tuple):
            return [item]  # what is no text is refused where documents are made
        if self._loader and all(isinstance(part, str) for part in item):
            return list(item)
        for part in item:
            if isinstance(part, str):
                return [part]
            if isinstance(part, list | tuple) and part and isinstance(part[0], str):
                return list(part)
        return [item]

    def _of_mapping(self, item: Mapping[Any, Any], index: int) -> Iterable[Any]:
        field = self._field
        if field not in item and field == "text" and "messages" in item:
            field = "messages"
        if field not in item:
            names = [str(name) for name in item]
            raise DataError(
                f"row {index} has no field {field!r} (fields: {', '.join(sorted(names))})"
                f"{near(field, names)}; name the field that holds the text (text_field=)"
            )
        text = item[field]
        if self._loader and isinstance(text, list | tuple) and not is_conversation(text):
            return list(text)
        return [text]


def _picture(item: Any, index: int) -> Iterable[tuple[Any, int | None]]:
    """(picture, path or array; label or None) of a row."""
    label: Any = None
    picture = item
    if isinstance(item, Mapping) and not is_picture(item):
        named = next((item[name] for name in _RESTS if is_picture(item.get(name))), None)
        picture = named or next((v for v in item.values() if is_picture(v)), None)
        label = next((item[name] for name in LABELS if name in item), None)
    elif isinstance(item, list | tuple) and item:
        picture, label = item[0], item[1] if len(item) == 2 else None
    if picture is None:
        raise DataError(f"row {index} of the data has no picture")
    return [(picture, _whole(label))]


def _whole(label: Any) -> int | None:
    """A label that is a whole number; None for any other, which names no class."""
    if isinstance(label, Tensor | np.ndarray):
        label = label.item() if label.ndim == 0 else None
    whole = isinstance(label, int | np.integer) and not isinstance(label, bool)
    return int(label) if whole else None
