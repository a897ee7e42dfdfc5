"""The `action` metric: how much a layer's code moves, seen through random projections.

Marshall & Kirchner 2024, section on the action and figure 4; supplement 1 defines the energy of a
path, supplement 2.5 an action without a difference ("static" here). A projection r [width, k] has
independent entries N(0, 1/width), and both actions are 1/2 tr(r^T S r) for a scatter matrix S, so
that their mean and variance over projections are exact (`theory.action_moments`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from polycode_plugins import theory
from polycode_plugins.activations import Positions, Site
from polycode_plugins.errors import DataError
from polycode_plugins.metrics.accumulators import Covariance, Precision
from polycode_plugins.metrics.action.first_path import FirstPath
from polycode_plugins.metrics.action.increments import Along, Increments
from polycode_plugins.metrics.action.result import ActionResult, Floats
from polycode_plugins.metrics.base import Accumulator, Metric, Result
from polycode_plugins.theory.action import Kind

CHUNK_VALUES = 4_000_000  # entries of the projections drawn at a time
# Keeps the projections apart from data that somebody else drew with the same seed.
STREAM = 0xAC7104


@dataclass(frozen=True)
class Action(Metric):
    """How far the code moves along its inputs, in random projections.

    A matrix [time, width] is one path along its rows, [batch, position, width] are `batch` paths
    along positions. Data whose rows have no order (photographs) has no path along rows: its number
    says how different two random inputs are, a von Neumann ratio near 2.

    Attributes:
        projections: how many to draw; the exact mean and deviation do not depend on it.
        dimensions: k, of a projection.
        kind: "path" (energy of the path, the default) or "static" (supplement 2.5, from the
            covariance that `Spectrum` needs too).
        path: "position" or "rows"; None takes the positions where a site has them, see
            `Increments`. Several paths give the mean action of one.
        positions: whether positions are "samples" or "features"; None is "features" for paths along
            rows, where a whole frame is a point, and "samples" otherwise.
        precision: of the products, see `Covariance`.
        seed: of the projections. The global random state is neither used nor changed.
    """

    name: ClassVar[str] = "action"
    result: ClassVar[type[Result]] = ActionResult

    projections: int = 1000
    dimensions: int = 3
    kind: Kind = "path"
    path: Along | None = None
    positions: Positions | None = None
    precision: Precision = "float64"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = {"projections": (2, 10**7), "dimensions": (1, 10**4), "seed": (0, 2**63)}
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise DataError(
                    f"{name} must be a whole number from {least} to {most}, not {value!r}"
                )
        if self.kind == "static" and self.path is not None:
            raise DataError("the static action has no path; leave path out, or use kind='path'")
        self.accumulators()  # they check the rest

    def admit(self, model: Any, *, train_mode: bool) -> None:
        """Refuse to guess where the positions of a model are patches of an image."""
        config = getattr(model, "config", None)
        owners = (model, config, getattr(config, "vision_config", None))
        guess = self.kind == "path" and self.path is None and self.positions != "features"
        if guess and any(hasattr(owner, "patch_size") for owner in owners):
            raise DataError(
                "the positions of this model are patches of an image, so name the path: "
                "path='rows' for images that follow one another, path='position' from patch to "
                "patch (--set action.path=rows)"
            )

    def accumulators(self) -> Mapping[str, Accumulator]:
        """The increments, or for the static action the covariance."""
        if self.kind == "path":
            return {
                "increments": Increments(self.path, self.positions, self.precision),
                "first": FirstPath(self.path, self.positions, self.dimensions, self.seed),
            }
        return {"covariance": Covariance(self.positions or "samples", self.precision)}

    def compute(self, accumulators: Mapping[str, Accumulator], site: Site) -> ActionResult:
        """The action at one site.

        Raises:
            DataError: where no two points follow one another; for "static", below two samples.
        """
        if self.kind == "path":
            first = cast(FirstPath, accumulators["first"])
            return self._of_path(cast(Increments, accumulators["increments"]), first.points())
        return self._of_covariance(cast(Covariance, accumulators["covariance"]))

    def _of_path(self, increments: Increments, trajectories: Floats | None) -> ActionResult:
        n, width = increments.n_steps, increments.width or 0
        scatter = increments.eigenvalues() if n <= width else increments.second_moment()
        paths, total = increments.n_paths, increments.total_variance()
        constant = _is_constant(total, increments.mean())
        return self._result(
            scatter,
            width,
            1 / paths,
            total_variance=0.0 if constant else total,
            n_samples=increments.n_samples,
            positions=increments.positions,
            n_steps=n,
            n_paths=paths,
            path=increments.path,
            interval=self._interval(increments),
            trajectories=trajectories,
        )

    def _of_covariance(self, covariance: Covariance) -> ActionResult:
        total, n, width = covariance.total_variance(), covariance.n_samples, covariance.width or 0
        few = n <= width
        mean = covariance.state()["rows"].double().mean(dim=0) if few else covariance.mean()
        return self._result(
            covariance.eigenvalues() if few else covariance.covariance(),
            width,
            (n - 1) / n,  # the mean over time divides by n
            total_variance=0.0 if _is_constant(total, mean) else total,
            n_samples=n,
            positions=covariance.positions,
        )

    def _result(
        self,
        scatter: Tensor,
        width: int,
        scale: float,
        *,
        total_variance: float,
        n_samples: int,
        positions: str,
        n_steps: int | None = None,
        n_paths: int | None = None,
        path: str | None = None,
        interval: tuple[float, float] | None = None,
        trajectories: Floats | None = None,
    ) -> ActionResult:
        """The result for S = `scale` times `scatter` (a matrix or its eigenvalues)."""
        moments = theory.action_moments(scatter, self.dimensions, width)
        trace = moments.expected * 2 * width / self.dimensions
        actions = scale * sampled_actions(
            scatter,
            width,
            projections=self.projections,
            dimensions=self.dimensions,
            seed=self.seed,
        )
        expected, drawn_sd = scale * moments.expected, float(actions.std(ddof=1))
        ratio = trace / n_steps / total_variance if n_steps and total_variance else None
        return ActionResult(
            expected=expected,
            sd=scale * moments.variance**0.5,
            monte_carlo=float(actions.mean()),
            monte_carlo_sd=drawn_sd,
            monte_carlo_se=drawn_sd / self.projections**0.5,
            normalised=expected / total_variance if total_variance else None,
            von_neumann_ratio=ratio,
            per_step=moments.expected / n_steps if n_steps else None,
            interval=interval,
            total_variance=total_variance,
            n_samples=n_samples,
            n_steps=n_steps,
            n_paths=n_paths,
            width=width,
            dimensions=self.dimensions,
            kind=self.kind,
            path=path,
            positions=positions,
            actions=actions,
            trajectories=trajectories,
        )

    def _interval(self, increments: Increments) -> tuple[float, float] | None:
        count, mean, variance = increments.path_energies()
        if count < 2:
            return None
        from scipy.stats import t

        assert increments.width is not None
        unit = self.dimensions / (2 * increments.width)
        half = float(t.ppf(0.975, count - 1)) * (variance / count) ** 0.5
        return unit * (mean - half), unit * (mean + half)


def sampled_actions(
    scatter: Tensor, width: int, *, projections: int, dimensions: int, seed: int
) -> Floats:
    """Actions 1/2 tr(r^T S r) of seeded random projections, float64 [projections].

    `scatter` is S [width, width], or its eigenvalues [components], the rest being 0. An isotropic
    Gaussian looks alike in every orthonormal basis, so with eigenvalues the projections are drawn
    in the basis of eigenvectors and only along components that are there: 100 frames of a layer of
    200,000 neurons need 100 normal numbers per projection and dimension. Memory is bounded by S and
    a few times 32 MB.
    """
    generator = np.random.default_rng((STREAM, seed))
    components = scatter.shape[0]
    chunk = max(1, CHUNK_VALUES // (components * dimensions))
    actions = np.empty(projections)
    for start in range(0, projections, chunk):
        count = min(chunk, projections - start)
        drawn = generator.standard_normal((count, dimensions, components))
        r = rearrange(
            torch.from_numpy(drawn).to(scatter.device), "n k component -> (n k) component"
        )
        weighted = r * scatter if scatter.dim() == 1 else r @ scatter
        energy = reduce((weighted * r).sum(dim=1), "(n k) -> n", "sum", k=dimensions)
        actions[start : start + count] = (energy / (2 * width)).cpu().numpy()
    return actions


def _is_constant(total_variance: float, mean: Tensor) -> bool:
    """Whether the variance is no more than what rounding of the mean leaves."""
    rounding = 16 * np.finfo(np.float64).eps
    return bool(total_variance <= rounding**2 * float(mean.square().sum()))
