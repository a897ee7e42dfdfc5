"""What the features of a sparse autoencoder read off an activation: the encoder's mathematics.

With z the normalised activation less the shift, and p = W z + b of all features:

- relu: max(p, 0) (Bricken et al. 2023);
- jumprelu: p where p > max(threshold, 0), else 0 (Rajamanoharan et al. 2024, "Jumping ahead"). A
  batch top-k autoencoder is one at inference, with one threshold for all (Bussmann et al. 2024);
- gated: max(exp(r) W z + b, 0) where W z + g > 0 (Rajamanoharan et al. 2024, "Improving dictionary
  learning with gated sparse autoencoders");
- topk: max(p, 0) of the k features with the largest p at a token (Gao et al. 2024);
- abstopk: p of the k features with the largest |p|, negative ones too;
- groupmax: max(p, 0) of the largest in each of k equal runs of features.

Of the last three a feature's activation depends on all others, so the whole of the encoder is read
whichever features are asked for.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.precision import full_precision

Activation = Literal["relu", "jumprelu", "gated", "topk", "abstopk", "groupmax"]
Normalisation = Literal["none", "constant_norm_rescale", "layer_norm"]
_SELECTING = ("topk", "abstopk", "groupmax")
_VALUES_AT_ONCE = 2**24  # pre-activations in memory: 64 MB
_EPSILON = 1e-5  # of SAELens's layer norm, which divides by deviation + epsilon


@dataclass(frozen=True, eq=False)
class Encoder:
    """The encoder of a sparse autoencoder, with its decoder where that is of the same site.

    Attributes:
        weight: float32 [features, width].
        bias: float32 [features], added to W z; of a gated one that of its magnitudes.
        activation: see above.
        k: features that a token keeps, of those that select.
        threshold: float32 [features], of "jumprelu".
        gate_bias, log_magnitudes: float32 [features], g and r of "gated".
        shift: float32 [width], taken from the activation first; None takes nothing.
        normalisation: of the activation [.., width] before that: "constant_norm_rescale" to length
            sqrt(width), "layer_norm" to mean 0 and standard deviation 1 (unbiased, over features).
        scale: the activation is multiplied with it first.
        decoder: float32 [features, width]; None where there is none, or it writes elsewhere.
        decoder_bias: float32 [width].

    Raises:
        DataError: for tensors whose shapes do not go together, or that are not finite.
    """

    weight: Tensor
    bias: Tensor
    activation: Activation = "relu"
    k: int = 0
    threshold: Tensor | None = None
    gate_bias: Tensor | None = None
    log_magnitudes: Tensor | None = None
    shift: Tensor | None = None
    normalisation: Normalisation = "none"
    scale: float = 1.0
    decoder: Tensor | None = None
    decoder_bias: Tensor | None = None
    _last: list[tuple[weakref.ref[Tensor], int, tuple[Tensor, Tensor]]] = field(
        default_factory=list, repr=False
    )

    def __post_init__(self) -> None:
        if self.weight.dim() != 2:
            raise DataError(f"an encoder is [features, width], not {tuple(self.weight.shape)}")
        features, width = self.weight.shape
        for name, shape in {
            "bias": (features,),
            "threshold": (features,),
            "gate_bias": (features,),
            "log_magnitudes": (features,),
            "shift": (width,),
            "decoder": (features, width),
            "decoder_bias": (width,),
        }.items():
            held = getattr(self, name)
            if held is not None and tuple(held.shape) != shape:
                raise DataError(
                    f"the autoencoder's {name} is {tuple(held.shape)} and its encoder is "
                    f"{features} features by {width}: these do not go together"
                )
            if held is not None and not bool(torch.isfinite(held).all()):
                raise DataError(f"the autoencoder's {name} holds NaN or infinity")
        if not bool(torch.isfinite(self.weight).all()):
            raise DataError("the autoencoder's weight holds NaN or infinity")
        if self.activation not in get_args(Activation):
            raise DataError(f"no activation of an autoencoder is called {self.activation!r}")
        if self.activation in _SELECTING and not 0 < self.k <= features:
            raise DataError(f"{self.activation} keeps {self.k} of {features} features")
        if self.activation == "groupmax" and features % self.k:
            raise DataError(f"{features} features do not make {self.k} equal groups")
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise DataError(f"activations are scaled by {self.scale}; give a positive number")

    @property
    def width(self) -> int:
        """Features of the site that it reads."""
        return int(self.weight.shape[1])

    def __len__(self) -> int:
        """How many features it has."""
        return int(self.weight.shape[0])

    def encode(self, values: Tensor, which: Tensor | None = None) -> Tensor:
        """float32 [..., features]: what all features, or those of `which`, read off `values`.

        Args:
            values: [..., width].
            which: int64 [features asked for].
        """
        flat = rearrange(values, "... width -> (...) width")
        rows = torch.arange(len(self)) if which is None else which.cpu()
        out = torch.empty(len(flat), len(rows), device=values.device)
        if self.activation in _SELECTING:
            kept, at = self._selected(values)
            places = torch.full((len(self),), -1)
            places[rows] = torch.arange(len(rows))
            place = places.to(values.device)[at]
            out.zero_()
            token, slot = (place >= 0).nonzero(as_tuple=True)
            out[token, place[token, slot]] = kept[token, slot]
        else:
            step = max(1, _VALUES_AT_ONCE // max(1, len(rows)))
            for start in range(0, len(flat), step):
                out[start : start + step] = self._by_itself(flat[start : start + step], rows)
        return out.reshape(*values.shape[:-1], len(rows))

    def explained_variance(self, values: Tensor) -> float | None:
        """1 - |x - x'|^2 / |x - mean|^2 of the decoder's x' over `values` [samples, width].

        In the normalised space where the autoencoder normalises. None where there is no decoder, or
        nothing varies.
        """
        if self.decoder is None or self.decoder_bias is None:
            return None
        wrong = total = 0.0
        mean = self._normalised(values).double().mean(dim=0)
        step = max(1, _VALUES_AT_ONCE // len(self))
        for start in range(0, len(values), step):
            part = values[start : start + step]
            x = self._normalised(part).double()
            with full_precision():
                made = self.encode(part) @ self.decoder.to(part.device)
            made += self.decoder_bias.to(part.device)
            wrong += float(((x - made.double()) ** 2).sum())
            total += float(((x - mean) ** 2).sum())
        return 1 - wrong / total if total > 0 else None

    def _normalised(self, values: Tensor) -> Tensor:
        x = values.float()
        if self.scale != 1:
            x = x * self.scale
        if self.normalisation == "constant_norm_rescale":
            x = x * (self.width**0.5 / x.norm(dim=-1, keepdim=True))
        elif self.normalisation == "layer_norm":
            x = x - x.mean(dim=-1, keepdim=True)
            x = x / (x.std(dim=-1, keepdim=True) + _EPSILON)
        return x

    def _read(self, values: Tensor) -> Tensor:
        """z [tokens, width]."""
        x = self._normalised(values)
        return x if self.shift is None else x - self.shift.to(x.device)

    def _by_itself(self, values: Tensor, rows: Tensor) -> Tensor:
        """What features that do not depend on each other read."""

        def of(tensor: Tensor | None) -> Tensor:
            assert tensor is not None
            return tensor[rows].to(values.device)

        with full_precision():
            read = self._read(values) @ of(self.weight).T
        if self.activation == "gated":
            magnitudes = read * of(self.log_magnitudes).exp() + of(self.bias)
            return magnitudes.relu() * (read + of(self.gate_bias) > 0)
        read += of(self.bias)
        made = read.relu()
        return made * (read > of(self.threshold)) if self.activation == "jumprelu" else made

    def _selected(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """float32 and int64 [tokens, k]: the activations that a token keeps, and whose these are.

        Those of the last tensor are kept: its units are asked for some at a time.
        """
        if self._last:
            tensor, version, found = self._last[0]
            if tensor() is values and values._version == version:
                return found
        flat = rearrange(values, "... width -> (...) width")
        weight, bias = self.weight.to(values.device), self.bias.to(values.device)
        kept, at = [], []
        step = max(1, _VALUES_AT_ONCE // len(self))
        for start in range(0, len(flat), step):
            with full_precision():
                read = self._read(flat[start : start + step]) @ weight.T
            read += bias
            if self.activation == "topk":
                largest, index = read.topk(self.k, dim=-1, sorted=False)
                largest = largest.relu()
            elif self.activation == "abstopk":
                index = read.abs().topk(self.k, dim=-1, sorted=False).indices
                largest = read.gather(-1, index)
            else:
                groups = rearrange(
                    read.relu(), "token (group one) -> token group one", group=self.k
                )
                largest, index = groups.max(dim=-1)
                index = index + torch.arange(0, len(self), len(self) // self.k, device=index.device)
            kept.append(largest)
            at.append(index)
        made = torch.cat(kept), torch.cat(at)
        self._last[:] = [(weakref.ref(values), values._version, made)]
        return made
