"""Which weights a result is of: a digest of every parameter and buffer, and their number.

The digest covers each byte (XXH3, 128 bits: at the speed of memory, so that nobody needs a sample),
where a sample of the values would let an edited neuron pass. It depends on names, shapes, number
formats and values, not on the device, the order in memory, or whether two names share a tensor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from polycode_plugins.files.content import raw

#: Of the digest: 1 was a SHA-256 of 64 values of each parameter, written without a number.
FORMAT = 2
_PLAIN = (str, bytes, int, float, torch.dtype, type(None))  # what stands in packed weights
_AT_ONCE = 2**24  # elements that are copied at a time, where a tensor is not in one piece


def fingerprint(model: Any) -> str | None:
    """Identifies a model's weights: "2:" and 64 hexadecimal digits.

    Every parameter and buffer counts, also buffers that are not saved, and the packed weights of
    quantised modules. What a module holds otherwise (plain attributes, hooks) does not.

    Returns:
        None where nothing can be proven: for what is no nn.Module, and where a weight has no
        values here (on the meta device, not yet initialised).
    """
    if not isinstance(model, nn.Module):
        return None
    digest = hashlib.sha256()
    known: dict[tuple[Any, ...], str] = {}
    for name, value in sorted(_weights(model).items()):
        if isinstance(value, _PLAIN):
            digest.update(json.dumps([name, repr(value)]).encode())
            continue
        if not isinstance(value, Tensor):
            return None
        try:
            place = _place(value)
            content = known.get(place) if place is not None else None
            if content is None:
                content = _content(value)
            if place is not None:
                known[place] = content
        except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError):
            return None  # no values, or a kind of tensor that does not give its bytes
        digest.update(json.dumps([name, list(value.shape), str(value.dtype), content]).encode())
    return f"{FORMAT}:{digest.hexdigest()}"


def identified(described: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """What an adapter says of its model, with the fingerprint of its weights.

    An adapter whose model is no torch module, or has its weights elsewhere, may give a
    "fingerprint" of its own: a text that differs when the weights do.
    """
    return {**described, "fingerprint": described.get("fingerprint") or fingerprint(model)}


def format_of(found: str | None) -> int | None:
    """The number of the format of a fingerprint that was read; None where there is none."""
    if found is None:
        return None
    number, colon, _ = found.partition(":")
    return int(number) if colon and number.isdecimal() and number.isascii() else 1


def parameter_count(model: Any) -> int:
    """Parameters of a model, where a number in memory counts once however many names it has."""
    if not isinstance(model, nn.Module):
        return 0
    elsewhere = 0
    spans: dict[int, list[tuple[int, int, int]]] = {}  # by storage: begin, end, parameters
    for parameter in model.parameters():
        try:
            storage = parameter.untyped_storage().data_ptr()
        except (RuntimeError, NotImplementedError, ValueError):
            storage = 0
        if not storage or not parameter.numel():  # on the meta device, or of a kind of its own
            elsewhere += _numel(parameter)
            continue
        begin = int(parameter.storage_offset())
        reach = 1 + sum(
            (n - 1) * stride for n, stride in zip(parameter.shape, parameter.stride(), strict=True)
        )
        spans.setdefault(storage, []).append((begin, begin + reach, parameter.numel()))
    return elsewhere + sum(_covered(found) for found in spans.values())


def _covered(spans: list[tuple[int, int, int]]) -> int:
    """Elements that the spans of one storage cover, at most as many as they name."""
    covered, last = 0, 0
    for begin, end, _ in sorted(spans):
        covered += max(0, end - max(begin, last))
        last = max(last, end)
    return min(covered, sum(n for _, _, n in spans))


def _numel(parameter: Tensor) -> int:
    try:
        return parameter.numel()
    except (RuntimeError, ValueError):  # not yet initialised
        return 0


def _weights(model: nn.Module) -> dict[str, Any]:
    """Everything that is hashed, by name: tensors, and what packed modules hold beside them."""
    found: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        found |= _flat(name, value)
    for name, tensor in model.named_buffers(remove_duplicate=False):
        found.setdefault(name, tensor)  # those that are not saved
    for name, tensor in model.named_parameters(remove_duplicate=False):
        found.setdefault(name, tensor)  # those that a module of its own way leaves out
    return {
        name: _fetched(model, name) if isinstance(value, Tensor) and value.is_meta else value
        for name, value in found.items()
    }


def _fetched(model: nn.Module, name: str) -> Any:
    """A weight that accelerate keeps elsewhere while its module is idle."""
    path, _, last = name.rpartition(".")
    try:
        hook = getattr(model.get_submodule(path), "_hf_hook", None)
    except AttributeError:
        hook = None
    for one in getattr(hook, "hooks", (hook,)):
        weights = getattr(one, "weights_map", None)
        if weights is not None:
            return weights[last]
    return torch.empty(0, device="meta")


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, tuple | list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return {name: value}
    parts = [_flat(f"{name}.{key}", part) for key, part in value.items()]
    return {key: found for part in parts for key, found in part.items()}


def _place(tensor: Tensor) -> tuple[Any, ...] | None:
    """Equal for two names of one tensor; None for kinds of tensors that do not say where they are.

    Holds while both exist.
    """
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
        return None
    return (
        tensor.device,
        tensor.data_ptr(),
        tuple(tensor.shape),
        tensor.stride(),
        tensor.dtype,
        tensor.is_neg(),
        tensor.is_conj(),
    )


@torch.no_grad()
def _content(tensor: Tensor) -> str:
    """The digest of a tensor's values, whatever it is made of."""
    if tensor.is_meta:
        raise ValueError("a tensor on the meta device has no values")
    digest = xxhash.xxh3_128()
    for part in _parts(tensor.detach()):
        for piece in _pieces(part):
            digest.update(raw(piece.cpu()))
    return str(digest.hexdigest())


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors that a tensor is made of."""
    if hasattr(tensor, "full_tensor"):  # spread over processes
        yield from _parts(tensor.full_tensor())
    elif hasattr(tensor, "__tensor_flatten__"):  # quantised and other kinds of tensors
        names, context = tensor.__tensor_flatten__()
        yield torch.frombuffer(bytearray(repr(context).encode()), dtype=torch.uint8)
        for name in names:
            yield from _parts(getattr(tensor, name))
    elif tensor.is_quantized:
        yield tensor.int_repr()
        if tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
            yield tensor.q_per_channel_scales()
            yield tensor.q_per_channel_zero_points()
        else:
            scale = [tensor.q_scale(), tensor.q_zero_point()]
            yield torch.tensor(scale, dtype=torch.float64)
    elif tensor.layout == torch.sparse_coo:
        whole = tensor.coalesce()
        yield from (whole.indices(), whole.values())
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
    elif tensor.layout != torch.strided:
        yield tensor.to_dense()
    else:
        yield tensor


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor's elements in order, flat; what has to be copied for that, a piece at a time."""
    if tensor.numel() == 0:
        return
    plain = tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()
    if tensor.numel() <= _AT_ONCE or (plain and tensor.device.type == "cpu"):
        yield tensor.contiguous().reshape(-1)
    elif plain:
        yield from torch.split(tensor.reshape(-1), _AT_ONCE)
    else:
        for row in tensor:
            yield from _pieces(row)
