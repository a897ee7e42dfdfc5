"""The interval of a difference, from those of both numbers."""

from __future__ import annotations

import math

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


def standard_error(ends: Ends) -> float:
    """Of a number with this 95% interval."""
    return (ends[1] - ends[0]) / 2 / QUANTILE
