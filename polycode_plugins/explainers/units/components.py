"""Directions found in a site's activations: principal and independent components."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.explainers.units.directions import directions
from polycode_plugins.metrics.accumulators import Covariance


def principal(covariance: Covariance, n: int | None = None) -> Units:
    """The leading `n` eigenvectors of a site's covariance, centred at its mean.

    Each has length 1; its entry of largest magnitude is positive.

    Raises:
        DataError: for fewer than two samples.
    """
    values, vectors = covariance.eigenvectors(n)
    offsets = vectors @ covariance.mean()
    origin = {"n_samples": covariance.n_samples, "eigenvalues": values.tolist()}
    return directions(
        vectors,
        [f"component {i + 1}" for i in range(len(vectors))],
        kind="component",
        offsets=offsets,
        origin=origin,
    )


def independent(samples: Tensor, n: int, *, seed: int = 0) -> Units:
    """`n` independent components by FastICA (scikit-learn), centred, each of length 1.

    Args:
        samples: [samples, width]; components are sought among its leading `n` principal ones.
        n: how many.
        seed: of the algorithm's start.

    Raises:
        DataError: where there are fewer samples than components, or it does not converge.
    """
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    count, width = samples.shape
    n = min(n, width)
    if count <= n:
        raise DataError(f"{n} independent components need more than {count} tokens; give more text")
    model = FastICA(n, whiten="unit-variance", random_state=seed, max_iter=1000, tol=1e-3)
    x = samples.double().cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(x)
        except ConvergenceWarning:
            raise DataError(
                f"FastICA found no {n} independent components of {count} tokens within 1000 "
                "iterations; ask for fewer, or give more text"
            ) from None
    found = np.asarray(model.components_)
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    peak = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    rows = torch.from_numpy(np.where(peak < 0, -found, found))
    return directions(
        rows,
        [f"independent {i + 1}" for i in range(n)],
        kind="independent",
        offsets=rows @ torch.from_numpy(x.mean(axis=0)),
        origin={"n_samples": count, "seed": seed, "iterations": int(model.n_iter_)},
    )
