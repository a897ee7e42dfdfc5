"""What was read, as one number: inputs of any nesting as bytes, whole or row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor


class ContentDigest:
    """SHA-256 over a sequence of byte strings, their order and their boundaries included.

    Attributes:
        count: of what was added.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self.count = 0

    def add(self, content: bytes) -> None:
        """Append one document or image."""
        self._sha.update(len(content).to_bytes(8, "big"))
        self._sha.update(content)
        self.count += 1

    def add_value(self, value: Any) -> None:
        """Append tensors, texts and numbers in containers of any nesting."""
        for name, content in leaves(value):
            if isinstance(content, Tensor):
                # Large ones at the speed of memory: this is read beside a model's forward pass.
                self.add(f"{name}{list(content.shape)}".encode())
                self.add(xxhash.xxh3_128_digest(raw(content)))
            elif isinstance(content, list):
                self.add(name.encode())
                for text in content:
                    self.add(text.encode("utf-8", "surrogatepass"))
            else:
                self.add(name.encode())
                self.add(content)

    def hexdigest(self) -> str:
        """The digest of everything added so far, 64 hexadecimal digits."""
        return self._sha.hexdigest()


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Tensor | list[str] | bytes]]:
    """(name and kind, content) of everything in nested containers, in an order of its own.

    Tensors and arrays come as tensors on the CPU, lists of strings as they are, other plain values
    as bytes. Of objects of other kinds only the type is known.
    """
    if isinstance(value, Tensor):
        yield f"{name}:{value.dtype}", value.detach().cpu()
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        yield from leaves(torch.from_numpy(np.ascontiguousarray(value)), name)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from leaves(value[key], f"{name}/{key}")
    elif isinstance(value, list | tuple):
        if value and all(isinstance(one, str) for one in value):
            yield f"{name}:texts", list(value)
            return
        for index, one in enumerate(value):
            yield from leaves(one, f"{name}/{index}")
    elif isinstance(value, str | bytes | int | float | complex | None):
        yield f"{name}:{type(value).__name__}", repr(value).encode()
    else:
        yield f"{name}:{type(value).__module__}.{type(value).__qualname__}", b""


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, row by row."""
    plain = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data if plain.numel() else memoryview(b"")


def by_row(value: Any, count: int) -> list[tuple[bytes, list[bytes] | list[memoryview] | bytes]]:
    """(name and kind, what is in each of `count` rows) of everything in an input.

    A tensor's rows are along its first axis where that has `count` places, else along the one axis
    that has (the batch of a sequence-first model). What has no rows comes as bytes: it is in all.
    """
    found: list[tuple[bytes, list[bytes] | list[memoryview] | bytes]] = []
    for name, content in leaves(value):
        if isinstance(content, bytes):
            found.append((name.encode(), content))
        elif isinstance(content, list):
            texts = [text.encode("utf-8", "surrogatepass") for text in content]
            found.append((name.encode(), texts if len(texts) == count else b"\0".join(texts)))
        else:
            found.append(_rows_of(name, content, count))
    return found


def _rows_of(name: str, tensor: Tensor, count: int) -> tuple[bytes, list[memoryview] | bytes]:
    axes = [axis for axis, size in enumerate(tensor.shape) if size == count]
    if not axes or (axes[0] and len(axes) > 1):
        return f"{name}{list(tensor.shape)}".encode(), bytes(raw(tensor))
    rows = tensor.movedim(axes[0], 0)
    whole = raw(rows)
    size = len(whole) // count
    header = f"{name}{list(rows.shape[1:])}".encode()
    return header, [whole[i * size : (i + 1) * size] for i in range(count)]
