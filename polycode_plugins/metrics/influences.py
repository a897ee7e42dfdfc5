"""`Influences`: what each sample adds to the error of a number, to first order.

A number that was computed from a sample errs because other samples might have come. To first order
that error is a sum over the samples of what each adds to it, its influence (Hampel 1974, J. Am.
Stat. Assoc. 69; the infinitesimal jackknife of Jaeckel 1972). Two runs that read the same rows have
two influences for each of them, and how these go together is how the errors do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Influences(NamedTuple):
    """Influences of samples on the numbers of one result.

    Attributes:
        values: {field of `Result.scalars()`: float64 [samples]}, in units of the number and from
            any origin: the number would be higher by about value / n_samples if the sample came
            once more. With the wrong sign the interval of the difference is wrong.
        independent: whether the result takes the samples of one document for independent.
    """

    values: Mapping[str, NDArray[np.float64]]
    independent: bool = False
