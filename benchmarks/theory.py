"""Closed forms beside their oracles: python benchmarks/theory.py [--quick]

Every number of `polycode_plugins.theory` that has a second way to it is computed both ways, and
the largest difference is printed with the time each way took; the capacity metric stands beside
planted codes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.signal import lfilter

from polycode_plugins import theory
from polycode_plugins.metrics import Capacity


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n## {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def dropout(quick: bool) -> None:
    rates = np.linspace(0, 0.99, 12 if quick else 100)
    rows = []
    for symbols in (2, 3, 4, 5, 8, 16, 32, 64):
        bits = np.log2(symbols)
        exact = theory.dropout_capacity(bits, rates)
        found, seconds = timed(
            lambda k=symbols: [
                theory.blahut_arimoto(theory.dropout_channel(k, rate)) for rate in rates
            ]
        )
        slack = {
            bound: np.max(np.abs(theory.dropout_capacity(bits, rates, bound) - exact))
            for bound in ("lower", "additive", "upper")
        }
        rows.append(
            [
                symbols,
                f"{max(abs(f.bits - e) for f, e in zip(found, exact, strict=True)):.1e}",
                f"{max(f.gap for f in found):.1e}",
                max(f.iterations for f in found),
                f"{seconds:.2f}",
                *(f"{slack[bound]:.3f}" for bound in ("lower", "additive", "upper")),
            ]
        )
    table(
        f"Dropout capacity and Blahut-Arimoto [bits], {len(rates)} rates from 0 to 0.99",
        ["symbols", "max abs difference", "max gap", "max steps", "s"]
        + [f"furthest {bound}" for bound in ("lower", "additive", "upper")],
        rows,
    )
    corner = theory.dropout_channel(5, 0.5)
    rows = []
    for tol in (1e-4, 1e-6) if quick else (1e-4, 1e-6, 1e-8):
        plain, slow = timed(lambda t=tol: theory.blahut_arimoto(corner, t, accelerate=False))
        newton, fast = timed(lambda t=tol: theory.blahut_arimoto(corner, t))
        rows.append([tol, plain.iterations, f"{slow:.3f}", newton.iterations, f"{fast:.4f}"])
    table(
        "Blahut-Arimoto at the corner (5 symbols, rate 1/2)",
        ["tol [bits]", "alternation: steps", "s", "Newton: steps", "s"],
        rows,
    )


def optimise(v: np.ndarray, kurtosis: float, dimensions: int, starts: int) -> np.ndarray:
    """The best of several quasi-Newton runs on the embedding itself."""
    shape = (len(v), dimensions)
    weight = np.full((len(v),) * 2, 2.0)
    np.fill_diagonal(weight, kurtosis - 1)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(shape)
        error = w @ w.T - np.diag(v)
        return (weight * error**2).sum(), 4 * ((weight * error) @ w).ravel()

    options = {"maxiter": 20_000, "maxfun": 50_000, "ftol": 0.0, "gtol": 1e-11}
    runs = [
        minimize(
            loss,
            0.5 * np.random.default_rng(seed).standard_normal(shape).ravel(),
            jac=True,
            method="L-BFGS-B",
            options=options,
        )
        for seed in range(starts)
    ]
    return min(runs, key=lambda run: run.fun).x.reshape(shape)


def allocation(quick: bool) -> None:
    cases = [(2, 1, 4.0), (6, 3, 5.0), (10, 4, 8.0), (8, 3, 20.0), (5, 2, 2.0)]
    if not quick:
        cases += [(20, 6, 6.0), (40, 10, 12.0), (60, 10, 50.0)]
    rows = []
    for features, dimensions, kurtosis in cases:
        v = np.random.default_rng(features).uniform(0.1, 1, features)
        w, slow = timed(lambda a=(v, kurtosis, dimensions): optimise(*a, starts=8))
        c, fast = timed(lambda a=(v, kurtosis, dimensions): theory.optimal_allocation(*a))
        total = theory.allocation_loss(c, v, kurtosis).sum()
        realised = theory.optimal_embedding(v, kurtosis, dimensions)
        rows.append(
            [
                f"{features}, {dimensions}, {kurtosis:g}",
                f"{(c == 1).sum()} / {((c > 0) & (c < 1)).sum()} / {(c == 0).sum()}",
                f"{total:.6f}",
                f"{theory.quadratic_loss(w, v, kurtosis) - total:.1e}",
                f"{abs(theory.feature_capacity(w) - c).max():.1e}",
                f"{abs(theory.quadratic_loss(realised, v, kurtosis) - total):.1e}",
                f"{slow:.2f}",
                f"{fast:.5f}",
            ]
        )
    table(
        "Optimal allocation and direct optimisation of W (best of 8 L-BFGS runs)",
        [
            "n, m, kurtosis",
            "alone / sharing / ignored",
            "loss",
            "direct - closed form",
            "max capacity difference",
            "optimal_embedding - closed form",
            "direct s",
            "closed form s",
        ],
        rows,
    )


def polytopes(quick: bool) -> None:
    rows = []
    for name in ("pair", "triangle", "tetrahedron", "pentagon", "square antiprism"):
        vertices = theory.polytope(name)  # type: ignore[arg-type]
        features, dimensions = vertices.shape
        error = abs(theory.feature_capacity(vertices) - dimensions / features).max()
        rows.append([name, f"{dimensions}/{features}", f"{error:.1e}"])
    table("Capacity of polytopes", ["polytope", "capacity", "max abs error"], rows)


def power_law(quick: bool) -> None:
    rows = []
    for width, bits, exponent in [(1000, 32, 1.0), (1000, 32, 0.5), (1600, 16, 1.5)]:
        ranks = np.arange(1, width + 1.0)
        step = 2.0**-24
        loss = theory.gaussian_entropy(np.ones(width), step) - theory.gaussian_entropy(
            ranks**-exponent, step
        )
        published = theory.power_law_entropy(width, bits, exponent, mode="as_published")
        corrected = theory.power_law_entropy(width, bits, exponent)
        rows.append(
            [
                f"{width}, {bits}, {exponent:g}",
                f"{published:,.1f}",
                f"{corrected:,.1f}",
                f"{width * bits - loss:,.1f}",
            ]
        )
    table(
        "Entropy under a power law [bits]",
        ["width, bits, exponent", "as published", "corrected", "from quantised Gaussians"],
        rows,
    )
    rows = []
    for exponent in (0.5, 1.0, 1.5, 2.0):
        published = (
            f"{theory.power_law_action(512, exponent, mode='as_published'):.4f}"
            if exponent > 1
            else "diverges"
        )
        rows.append([exponent, published, f"{theory.power_law_action(512, exponent):.6f}"])
    table(
        "Expected static action under a power law, width 512, 3 dimensions",
        ["exponent", "as published, zeta/2", "corrected"],
        rows,
    )


def action(quick: bool) -> None:
    rows = []
    projections = 1000
    for time_steps, width in [(200, 512)] if quick else [(200, 512), (64, 1600), (1000, 256)]:
        rng = np.random.default_rng(0)
        path = rng.standard_normal((time_steps, width)).cumsum(0)
        steps = np.diff(path, axis=0)

        def sample(rng: np.random.Generator = rng, steps: np.ndarray = steps) -> np.ndarray:
            m = steps.shape[1]
            draws = (rng.standard_normal((m, 3)) / np.sqrt(m) for _ in range(projections))
            return np.array([0.5 * ((steps @ r) ** 2).sum() for r in draws])

        sampled, slow = timed(sample)
        exact, fast = timed(lambda p=path: theory.expected_action(p))
        trace = 3 / (2 * width) * np.trace(steps.T @ steps)
        variance = theory.action_variance(path)
        rows.append(
            [
                f"{time_steps} x {width}",
                f"{exact:.4f}",
                f"{abs(exact / trace - 1):.1e}",
                f"{sampled.mean() / exact - 1:+.2%}",
                f"{np.sqrt(variance / projections) / exact:.2%}",
                f"{sampled.std() / np.sqrt(variance):.3f}",
                f"{slow:.2f}",
                f"{fast:.4f}",
            ]
        )
    table(
        f"Action of a random walk: exact and {projections} random projections",
        [
            "time x width",
            "exact",
            "off the trace",
            "sampled - exact",
            "sd of that, exact",
            "sampled sd / exact sd",
            "sampled s",
            "exact s",
        ],
        rows,
    )


def entropies(quick: bool) -> None:
    rows = []
    for symbols, sparsity, features in [(3, 0.5, 3), (4, 0.9, 4), (7, 0.2, 4)]:
        one = np.array([sparsity, *[(1 - sparsity) / symbols] * symbols])
        joint = one
        for _ in range(features - 1):
            joint = np.multiply.outer(joint, one)
        brute = -float((joint * np.log2(joint)).sum())
        forms = [
            theory.sparse_entropy(features, sparsity, np.log2(symbols), mode)
            for mode in ("corrected", "as_published")
        ]
        case = f"sparse input, {features} features of {symbols} values, S = {sparsity:g} (Lemma 2)"
        rows.append([case, f"{forms[0]:.6f}", f"{abs(forms[0] - brute):.0e}", f"{forms[1]:.6f}"])
    for seed in range(2 if quick else 4):
        noise = np.random.default_rng(seed).uniform(0.1, 3, 8)
        budget = {"type": "eq", "fun": lambda p: p.sum() - 4.0}
        found = minimize(
            lambda p, noise=noise: -0.5 * np.log2(1 + p / noise).sum(),
            np.full(8, 0.5),
            bounds=[(0, None)] * 8,
            constraints=budget,
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        closed = theory.gaussian_capacity(noise, 4.0).bits
        case = f"water-filling over 8 unequal channels, draw {seed + 1}"
        rows.append([case, f"{closed:.6f}", f"{abs(closed + found.fun):.0e}", ""])
    table(
        "Entropy of sparse inputs by enumeration, and water-filling by numerical optimisation",
        ["case", "closed form [bits]", "off the oracle", "as published [bits]"],
        rows,
    )


def features(quick: bool) -> None:
    rows = []
    samples = 200_000 if quick else 2_000_000
    for n, m in [(8, 3), (30, 10)]:
        rng = np.random.default_rng(n)
        w = rng.standard_normal((n, m))
        x = rng.standard_normal((samples, n))
        seen = x @ w @ w.T
        squared = [np.corrcoef(x[:, i], seen[:, i])[0, 1] ** 2 for i in range(n)]
        error = np.abs(theory.feature_capacity(w) - squared).max()
        rows.append([f"{n} in {m}", f"{error:.4f}", f"{0.77 / np.sqrt(samples):.4f}"])
    table(
        f"Feature capacity and the squared correlation it stands for, {samples:,} samples",
        ["features in dimensions", "largest difference", "standard error of one, at most"],
        rows,
    )


def measured(quick: bool) -> None:
    rows = []
    width, exponent = 50, 1.0
    variances = np.arange(1, width + 1) ** -exponent
    step = 0.1 * np.sqrt(variances.mean())
    flat = theory.gaussian_entropy(np.full(width, variances.mean()), step)
    truth = flat - theory.gaussian_entropy(variances, step)
    seeds = 40 if quick else 200
    silent = np.maximum(np.random.default_rng(0).standard_normal(10**6) - 1, 0).std()

    def gaussian(rng: np.random.Generator, texts: int, length: int = 1, lag: float = 0.0) -> Any:
        noise = rng.standard_normal((texts, length + 40, width))
        return lfilter([np.sqrt(1 - lag**2)], [1, -lag], noise, axis=1)[:, 40:]

    def relu(rng: np.random.Generator, n: int) -> Any:
        return np.maximum(rng.standard_normal((n, width)) - 1, 0) / silent

    def laplace(rng: np.random.Generator, n: int) -> Any:
        return rng.laplace(size=(n, width)) / 2**0.5

    cases: list[tuple[str, int, Callable[[np.random.Generator], Any]]] = [
        *((f"{n}, independent", n, partial(gaussian, texts=n)) for n in (100, 400, 4000)),
        ("60 x 40, correlation 0.8", 60, partial(gaussian, texts=60, length=40, lag=0.8)),
        *((f"{n}, ReLU silent in 84%", n, partial(relu, n=n)) for n in (400, 4000)),
        *((f"{n}, Laplace", n, partial(laplace, n=n)) for n in (400, 4000)),
    ]
    for kind, number, draw in cases:
        found = []
        for seed in range(seeds):
            code = draw(np.random.default_rng([seed, number]))
            values = torch.from_numpy(code * np.sqrt(variances))
            found.append(Capacity(exponent=exponent).measure(values))
        naive = np.mean([r.flat_entropy - r.entropy_naive for r in found]) - truth
        errors = np.array([r.redundancy for r in found]) - truth
        inside = [r.interval[0] <= truth <= r.interval[1] for r in found if r.interval is not None]
        rows.append(
            [
                kind,
                f"{np.mean([r.effective_samples for r in found]):,.0f}",
                f"{naive:+.2f}",
                f"{errors.mean():+.2f}",
                f"{errors.std():.2f}",
                f"{np.mean(inside):.0%}",
            ]
        )
    table(
        f"Redundancy as measured: width {width}, exponent 1, truth {truth:.2f} of {flat:.1f} bits, "
        f"{seeds} seeds",
        [
            "samples",
            "worth",
            "naive bias [bits]",
            "bias [bits]",
            "sd [bits]",
            "95% interval covers",
        ],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller grids, a few seconds")
    quick = parser.parse_args().quick
    print("# Closed forms beside their oracles")
    for part in (dropout, entropies, power_law, features, allocation, polytopes, measured, action):
        part(quick)


if __name__ == "__main__":
    main()
