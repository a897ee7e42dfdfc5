"""The interval of a difference, from those of both numbers."""

from __future__ import annotations

import math

from polycode_plugins.metrics.error_correlation import ErrorCorrelation

#: Of the normal distribution, for 95%.
QUANTILE = 1.959964

Ends = tuple[float, float]


def between(
    first: float, ends: Ends, second: float, other_ends: Ends, correlation: float = 0.0
) -> Ends:
    """95% interval of second less first from those of both.

    Of independent numbers the distance of each end is the root of the sum of squares of the
    distances that lead there (Zou & Donner 2008, MOVER). Where errors go together,

        a^2 + b^2 - 2 r a b  =  (1 - |r|) (a^2 + b^2)  +  |r| (a -+ b)^2,

    a part of each number's error is independent, and the rest common to both: for a correlation r
    above 0 both are then off to the same side, and of the two sides the one counts that leads
    further; below 0 to opposite ones. With ends at equal distances this is Zou 2007 (Psychol.
    Methods 12).

    Args:
        first, second: the numbers.
        ends, other_ends: the (low, high) of each.
        correlation: of their errors, -1 to 1.
    """
    gap = second - first
    below, above = first - ends[0], ends[1] - first
    other_below, other_above = second - other_ends[0], other_ends[1] - second
    if correlation >= 0:
        down = max(other_below - below, above - other_above, 0.0)
        up = max(other_above - above, below - other_below, 0.0)
    else:
        down, up = other_below + above, other_above + below
    share = abs(correlation)
    alone = math.sqrt(1 - share)
    return (
        gap - math.hypot(alone * other_below, alone * above, math.sqrt(share) * down),
        gap + math.hypot(alone * other_above, alone * below, math.sqrt(share) * up),
    )


def paired(
    first: float, ends: Ends, second: float, other_ends: Ends, errors: ErrorCorrelation
) -> tuple[Ends, float]:
    """95% interval of second less first, of the same rows, and the correlation that it counts on.

    Where documents spread a number evidently more than its own interval says, that is taken for as
    much wider.

    errors: how those of both go together; else see `between`.
    """
    one, other = (
        _stretched(value, own, spread, errors.documents)
        for value, own, spread in (
            (first, ends, errors.spreads[0]),
            (second, other_ends, errors.spreads[1]),
        )
    )
    counted = errors.counted((standard_error(one), standard_error(other)))
    return between(first, one, second, other, counted), counted


def _stretched(value: float, ends: Ends, spread: float, documents: float) -> Ends:
    """The ends as far apart as a standard error is at least, from so many documents."""
    least = spread * (1 - 1 / math.sqrt(2 * documents))  # less its own standard error
    own = standard_error(ends)
    more = least / own if least > own > 0 else 1.0
    return value - more * (value - ends[0]), value + more * (ends[1] - value)


def standard_error(ends: Ends) -> float:
    """Of a number with this 95% interval."""
    return (ends[1] - ends[0]) / 2 / QUANTILE
