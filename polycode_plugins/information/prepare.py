"""From what the user passed to the coordinates the estimators work in, with what was noticed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from polycode_plugins.errors import DataError
from polycode_plugins.information.channels import Channel, require_noise
from polycode_plugins.information.gaussian import EXACT, canonical
from polycode_plugins.information.neighbours import growth
from polycode_plugins.information.samples import (
    Floats,
    Labels,
    Samples,
    copies,
    heavy_tailed,
    read,
    repeated,
)
from polycode_plugins.information.transforms import (
    MAXIMUM_WIDTH,
    normal_scores,
    one_hot,
    principal_components,
    regaussianise,
    standardise,
)

#: Share of samples with a value that occurs again, above which a coordinate counts as having atoms.
ATOMS = 0.01
#: Widest pair, both sides together, in which neighbours are searched for.
NEIGHBOUR_WIDTH = 128
#: Share of ln N by which a neighbour estimate may grow with N before noise is thought missing.
GROWTH = 0.5


@dataclass(frozen=True)
class Pair:
    """Both sides, their normal scores [samples, width], and the warnings so far.

    Beside a label the scores are the values themselves, standardised, unless these have heavy
    tails. The scores of a label are an empty array. atoms: whether values repeat.
    """

    x: Samples
    y: Samples
    x_scores: Floats
    y_scores: Floats
    atoms: bool
    counted: tuple[Labels, Labels] | None
    warnings: tuple[str, ...]

    @property
    def n_samples(self) -> int:
        """Number of paired samples."""
        return self.x.shape[0]

    def critic_arrays(self) -> tuple[Floats, Floats]:
        """What critics see: scores made Gaussian along their principal axes too, or one-hot."""
        x, y = (one_hot(s.labels) if s.labels is not None else None for s in (self.x, self.y))
        if x is None and y is None:
            return regaussianise(self.x_scores), regaussianise(self.y_scores)
        return self.x_scores if x is None else x, self.y_scores if y is None else y

    def queries(self) -> int:
        """At how many samples to ask for neighbours; a tree is no help in many dimensions."""
        width = self.x_scores.shape[1] + self.y_scores.shape[1]
        if width > NEIGHBOUR_WIDTH:
            raise DataError(f"neighbours tell nothing in {width} dimensions.")
        return 10_000 if width <= 4 else 2_000 if width <= 20 else 1_000

    @staticmethod
    def raw(side: Samples) -> Floats:
        """The values as passed, labels as one-hot columns."""
        return side.values if side.labels is None else one_hot(side.labels)


def prepare(x: Any, y: Any, channel: Channel | None, seed: int) -> Pair:
    """Read both arrays, put the channel's noise on y, and look for what spoils estimates.

    Raises `DataError` for arrays of different length, for what `read` refuses, and where a linear
    function of one side equals one of the other.
    """
    said: list[str] = []
    if channel is not None:
        y = _noisy(y, require_noise(channel, "y"), seed)
        if not channel.finite:
            said.append(
                f"With {channel.describe()}, continuous values that survive are exact, so the "
                "information has no finite value; what is estimated is what critics of this "
                "resolution can tell."
            )
    left, right = read(x, "x"), read(y, "y")
    if left.shape[0] != right.shape[0]:
        raise DataError(
            f"x has {left.shape[0]} samples and y {right.shape[0]}; they must be paired row by row."
        )
    for side in (left, right):
        said += _of_one_side(side)
    if left.constant or right.constant:
        return Pair(left, right, left.values, right.values, False, None, tuple(said))
    x_scores, x_said = _scores(left, right)
    y_scores, y_said = _scores(right, left)
    said += x_said + y_said
    atoms = max(repeated(side.values) if side.width else 0.0 for side in (left, right)) > ATOMS
    counted = _counted(left, right)
    if not left.discrete and not right.discrete and counted is None:
        said += _of_copies(left, right)
        said += _of_both(left, right, x_scores, y_scores, atoms, seed)
    return Pair(left, right, x_scores, y_scores, atoms, counted, tuple(said))


def _noisy(y: Any, channel: Channel, seed: int) -> torch.Tensor:
    values = torch.as_tensor(y)
    if not values.is_floating_point():
        raise DataError(
            f"y holds labels ({values.dtype}), to which {channel.describe()} cannot be applied; "
            "pass floats, or put the noise on before."
        )
    return channel.apply(values, torch.Generator().manual_seed(seed))


def _of_one_side(side: Samples) -> list[str]:
    said = []
    if side.constant:
        said.append(f"{side.name} is constant, so it carries no information: 0 nats.")
    elif side.dropped:
        said.append(f"{side.dropped} constant coordinates of {side.name} were left out.")
    if side.labels is not None:
        symbols = int(side.labels.max()) + 1
        if symbols > len(side.labels) / 10:
            said.append(
                f"{side.name} has {symbols} labels for {len(side.labels)} samples, which is too "
                "few of each; if they are numbers rather than labels, pass floats."
            )
    elif side.width and heavy_tailed(side.values):
        said.append(f"{side.name} has heavy tails; ranks take their place (normal scores).")
    if side.labels is None and side.width and (share := repeated(side.values)) > ATOMS:
        said.append(
            f"{share:.0%} of the samples share a value of {side.name} with another (atoms, "
            "rounding or half precision); ties among neighbours are counted for what they are."
        )
    return said


def _scores(side: Samples, other: Samples) -> tuple[Floats, list[str]]:
    if side.labels is not None:
        return side.values, []
    if other.labels is not None and not heavy_tailed(side.values):
        # Ranks close the gaps between classes, and gaps are what tells the classes apart.
        scores = standardise(side.values)
    else:
        scores = normal_scores(side.values)
    if scores.shape[1] <= MAXIMUM_WIDTH:
        return scores, []
    reduced, share = principal_components(scores, MAXIMUM_WIDTH)
    return reduced, [
        f"{side.name} has {scores.shape[1]} coordinates; its first {MAXIMUM_WIDTH} principal "
        f"components ({share:.1%} of the variance) stand for them, which can only lose information."
    ]


def _of_both(
    x: Samples, y: Samples, x_scores: Floats, y_scores: Floats, atoms: bool, seed: int
) -> list[str]:
    width = x_scores.shape[1] + y_scores.shape[1]
    if width < len(x_scores) / 2:
        views = [(x_scores, y_scores)]
        if max(x.width, y.width) <= MAXIMUM_WIDTH:
            views.append((standardise(x.values), standardise(y.values)))
        for a, b in views:
            if 1 - canonical(a, b).correlations[0] ** 2 < EXACT:
                raise DataError(
                    "A linear function of y (or of its ranks) equals one of x exactly, so the "
                    "information is infinite; state the noise between them with channel=..., or "
                    "drop the coordinate they share."
                )
    said = []
    if not atoms and width <= 20 and growth(x_scores, y_scores, seed=seed, queries=500) > GROWTH:
        said.append(
            "The neighbour estimate grows with the number of samples, as it does for a relation "
            "without noise, whose information is infinite; state the noise with channel=... ."
        )
    return said


def _of_copies(x: Samples, y: Samples) -> list[str]:
    if (share := copies(x.values, y.values)) > ATOMS:
        return [
            f"{share:.0%} of the samples are copies of a pair that occurs more than once, though "
            "neither side of it occurs elsewhere; held-out samples are then no new ones and all "
            "estimates come out too high, so remove duplicates."
        ]
    return []


def _counted(x: Samples, y: Samples) -> tuple[Labels, Labels] | None:
    one, two = x.codes, y.codes
    if one is None or two is None:
        return None
    few = (int(one.max()) + 1) * (int(two.max()) + 1) <= len(one)
    return (one, two) if few or (x.discrete and y.discrete) else None
