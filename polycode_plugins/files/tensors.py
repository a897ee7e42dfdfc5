"""Tensors into a safetensors file, and out of it, one at a time: a large state needs no copy.

The library's own writer takes all tensors at once and holds the bytes of each while it writes. The
format (github.com/huggingface/safetensors) is a header of JSON behind its length, then the bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from polycode_plugins.errors import StateError
from polycode_plugins.files.content import raw

_TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
_ALIGNED = 8


@dataclass(frozen=True)
class Lazy:
    """A tensor that is made when it is written: its type, its shape, and how."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


class Saved(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read when it is asked for, and only then in memory.

    Raises:
        StateError: for a file that is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._where: dict[str, tuple[torch.dtype, tuple[int, ...], int, int]] = {}
        try:
            self._read_header()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StateError(f"{str(path)!r} is damaged: {error}") from error

    def _read_header(self) -> None:
        size = self.nbytes
        with open(self._path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= size - 8:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length).decode("utf-8"))
        known = {text: dtype for dtype, text in _TYPES.items()}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            dtype, shape = known[entry["dtype"]], tuple(entry["shape"])
            begin, end = (8 + length + int(offset) for offset in entry["data_offsets"])
            whole = all(type(n) is int and n >= 0 for n in shape)
            if not whole or not 8 + length <= begin <= end <= size:
                raise ValueError(f"the place of {name!r} is not in the file")
            if end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"the size of {name!r} is not that of its shape")
            self._where[name] = dtype, shape, begin, end - begin

    def __getitem__(self, name: str) -> Tensor:
        dtype, shape, begin, size = self._where[name]
        content = bytearray(size)
        try:
            with open(self._path, "rb") as file:
                file.seek(begin)
                count = file.readinto(content)
        except OSError as error:
            raise StateError(f"{str(self._path)!r} cannot be read: {error.strerror}") from error
        if count != size:
            raise StateError(f"{str(self._path)!r} is damaged: it ends within {name!r}")
        if not size:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(content, dtype=dtype).reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self._path.stat().st_size

    def lazy(self) -> dict[str, Lazy]:
        """All of them, to be written into another file."""
        return {
            name: Lazy(dtype, shape, partial(self.__getitem__, name))
            for name, (dtype, shape, _, _) in self._where.items()
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def write(path: Path, tensors: Mapping[str, Tensor | Lazy]) -> None:
    """Write a safetensors file; of lazy tensors one at a time is in memory.

    Raises:
        StateError: for a type that the format does not have.
        OSError: when the system refuses.
    """
    header: dict[str, object] = {}
    at = 0
    # Wide types first, as the library orders them: each tensor begins where its type may.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _TYPES:
            raise StateError(f"the tensor {name!r} is of {tensor.dtype}, which cannot be saved")
        size = math.prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            tensor = tensors[name]
            made = tensor.make() if isinstance(tensor, Lazy) else tensor
            if made.dtype != tensor.dtype or tuple(made.shape) != tuple(tensor.shape):
                raise StateError(f"the tensor {name!r} changed while it was saved")
            file.write(raw(made.detach().cpu()))
