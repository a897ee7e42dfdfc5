"""What a metric takes: arrays as activations, and what is refused before anything is counted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.activations import Activations, default_axes
from polycode_plugins.errors import DataError


def as_activations(
    values: Tensor | np.ndarray[Any, Any] | Activations,
    *,
    axes: tuple[str, ...] | None = None,
    mask: Tensor | None = None,
) -> Activations:
    """Wrap a torch or numpy array; the axes are the usual ones for its shape unless named.

    Raises:
        DataError: for integers, complex numbers, attention weights, and a single axis.
    """
    if isinstance(values, Activations):
        return dataclasses.replace(values)  # the tensor may have changed since it was last read
    tensor = torch.as_tensor(values)
    if tensor.is_complex():
        raise DataError("activations are complex; pass the real part or the modulus")
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise DataError(
            f"activations are floating-point, and these are of type {kind}, as token numbers and "
            "labels are; where they are activations all the same, pass values.double()"
        )
    if axes is None and _are_weights(tensor):
        raise DataError(
            f"these {tuple(tensor.shape)} are attention weights (each row along the last axis adds "
            "up to 1), not the activations of units; name the axes with axes= if they are not"
        )
    if axes is None and tensor.dim() < 2:
        raise DataError(
            f"activations of shape {tuple(tensor.shape)} do not say what are samples and what are "
            "features; give a matrix [samples, features], for example values[:, None] for samples "
            "of one feature"
        )
    return Activations(
        tensor.detach(), default_axes(tensor.dim()) if axes is None else axes, mask=mask
    )


def _are_weights(tensor: Tensor) -> bool:
    """Whether a tensor [.., query, key] holds what a softmax over the keys gives."""
    if tensor.dim() not in (3, 4) or tensor.shape[-1] != tensor.shape[-2] or tensor.shape[-1] < 2:
        return False
    if tensor.is_meta or not tensor.numel() or bool((tensor < 0).any()):
        return False
    sums = tensor.detach().sum(dim=-1, dtype=torch.float64)
    return bool(((sums - 1).abs() < 0.02).all())  # also in bfloat16


def check_finite(batch: Activations, site: str, index: int | None = None) -> None:
    """Raise DataError when a value that counts is NaN or infinite; names the site and batch."""
    # No sum with a term that is not finite is finite. One in float32 takes a sixth of the time of
    # one in float64, and may overflow, which float32 values cannot do in float64.
    narrow = torch.float32 if batch.values.element_size() < 4 else batch.values.dtype
    for precision in (narrow, torch.float64):
        if bool(torch.isfinite(batch.values.sum(dtype=precision))):
            return
    samples = batch.matrix("samples")
    bad = int((~torch.isfinite(samples)).sum())
    if bad:
        raise _not_finite(bad, samples.numel(), site, index)


def _not_finite(bad: int, of: int, site: str, index: int | None) -> DataError:
    where = f"batch {index} of site {site!r}" if index is not None else f"site {site!r}"
    return DataError(
        f"{bad} of {of} activations in {where} are NaN or infinite; "
        "check the model and its inputs, or run it in float32"
    )


class FiniteCheck:
    """`check_finite` of a stream, without waiting for a GPU in every batch.

    On the CPU a batch is refused before anything of it is counted. On a GPU the number of bad
    values stays there, and is looked at every `LOOK` batches and by whoever reads the statistics:
    nothing is made of what was counted meanwhile.

    Attributes:
        errors: what was found, {site: what to raise}.
    """

    LOOK = 16

    def __init__(self) -> None:
        self.errors: dict[str, DataError] = {}
        self._unread: list[tuple[Tensor, int, str, int]] = []

    def note(self, batch: Activations, site: str, index: int) -> None:
        """Check a batch, or note what will tell.

        Args:
            batch: of a site. index: its number.

        Raises:
            DataError: on the CPU, see `check_finite`.
        """
        if batch.values.device.type == "cpu":
            check_finite(batch, site, index)
            return
        samples = batch.matrix("samples")
        bad = (~torch.isfinite(samples)).sum()
        self._unread.append((bad, samples.numel(), site, index))

    def look(self, at_least: int = 1) -> None:
        """Find out about the batches so far, where so many are unknown; waits for the GPU."""
        if len(self._unread) < at_least:
            return
        unread, self._unread = self._unread, []
        for device in {bad.device for bad, *_ in unread}:
            there = [one for one in unread if one[0].device == device]
            counts = torch.stack([bad for bad, *_ in there]).cpu().tolist()
            for count, (_, of, site, index) in zip(counts, there, strict=True):
                if count:
                    self.errors.setdefault(site, _not_finite(count, of, site, index))

    def refuse(self) -> None:
        """Raise what is known.

        Raises:
            DataError: for the first site that was found.
        """
        for error in self.errors.values():
            raise error
