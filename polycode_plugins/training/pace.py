"""When to measure: every so many steps, and never more than a share of the time of training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

ROUNDING = 1e-9  # of sums of seconds


class Pace:
    """The steps at which there is time for a measurement.

    Steps are multiples of `every`. One of them is left out where a measurement that takes as long
    as the one before would bring all of them together above `share` of the time that training has
    taken without them. The first is always made, so a run shorter than its cost / `share` exceeds
    it.

    Args:
        every: steps between two measurements.
        share: most seconds of measurements for each second of training.
        clock: tells seconds.

    Attributes:
        spent: seconds that measurements have taken in all.
        last: seconds that the one before took.
    """

    def __init__(
        self, every: int, share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.every = every
        self.share = share
        self.spent = 0.0
        self.last: float | None = None
        self._clock = clock
        self._began = clock()
        self._first_step = 0
        self._put_off: int | None = None  # the interval that was last told

    def begin(self, step: int) -> None:
        """Training begins, or goes on, at this step."""
        self._began, self._first_step = self._clock(), step
        self.spent = 0.0

    @property
    def trained(self) -> float:
        """Seconds since training began, less those of measurements."""
        return max(self._clock() - self._began - self.spent, 0.0)

    @property
    def used(self) -> float | None:
        """Seconds of measurements for each of training; None before there was any training."""
        return self.spent / self.trained if self.trained > 0 else None

    def due(self, step: int) -> bool:
        """Whether to measure after this step."""
        return step % self.every == 0 and self.affordable()

    def affordable(self) -> bool:
        """Whether one more measurement stays within the share."""
        if math.isinf(self.share):
            return True  # also before any time has passed
        return self.spent + (self.last or 0.0) <= self.share * self.trained * (1 + ROUNDING)

    def took(self, seconds: float, usual: float | None = None) -> None:
        """A measurement took so long; `usual` is what the next one will, where it is another."""
        self.spent += seconds
        self.last = seconds if usual is None else usual

    def interval(self, step: int) -> int | None:
        """Steps from one measurement to the next that the share allows, a multiple of `every`."""
        done = step - self._first_step
        if done <= 0 or self.last is None or self.trained <= 0:
            return None
        needed = self.last / self.share / (self.trained / done)
        return self.every * max(1, math.ceil(needed / self.every * (1 - ROUNDING)))

    def put_off(self, step: int) -> str:
        """A sentence on why nothing is measured at `step`, the first time and when it changes."""
        found = self.interval(step)
        if step % self.every or found is None or found == self.every or self.last is None:
            return ""
        told, self._put_off = self._put_off, found
        if told is not None and told / 2 < found < told * 2:
            self._put_off = told
            return ""
        each = self.last / (self.trained / (step - self._first_step) * self.every)
        return (
            f"a measurement takes {self.last:.3g} s, which every {self.every} steps would be "
            f"{each:.0%} of the time of training and may be {self.share:.0%}: about every {found} "
            "steps one is made; measure fewer rows or sites (limit=, sites=), or allow more "
            "(share=)"
        )
