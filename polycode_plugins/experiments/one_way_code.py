"""A code that is easy to write and hard to read: networks that compute g^x mod p, and decoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.experiments.base import Experiment, parts
from polycode_plugins.experiments.claims import (
    CannotJudge,
    Claim,
    Effect,
    Numbers,
    at_least,
    at_most,
    mean_effect,
    share_effect,
)
from polycode_plugins.experiments.digit_networks import FOLDS, fit, held_out, right_digits
from polycode_plugins.experiments.discrete_log import Group, Integers, digits, group

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CODES = ("one-way", "hidden layer", "two-way")


@dataclass(frozen=True)
class Settings:
    """Settings.

    learnt: binary digits of the primes for which networks are trained, on every exponent.
    larger: of the primes for which codes are decoded only.
    samples: most exponents that decoders see.
    network_width, width: of the two hidden layers of networks, and of decoders.
    batch, steps, rate: of Adam, for networks and decoders.
    logarithms: that are computed exactly for each prime.
    """

    learnt: tuple[int, ...] = (5, 6, 8, 10)
    larger: tuple[int, ...] = (12, 16, 20)
    samples: int = 4096
    network_width: int = 256
    width: int = 128
    batch: int = 256
    steps: int = 1000
    rate: float = 3e-3
    logarithms: int = 20


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`forward`: networks by prime; `decoders`: by prime, code and fold; `exact`: logarithms."""
    import pandas as pd

    def of_prime(key: str) -> pd.DataFrame:
        return pd.DataFrame(_prime(group(int(key)), settings, seed))

    every = [str(bits) for bits in (*settings.learnt, *settings.larger)]
    table = parts(folder, "prime", every, of_prime).drop(columns="part")
    forward: pd.DataFrame = table[table["kind"] == "forward"].drop(columns=["kind", "skill"])
    decoders: pd.DataFrame = table[table["kind"] == "decoder"].drop(columns="kind")
    exact = [_exact(group(int(bits)), settings, seed) for bits in every]
    return {
        "forward": forward.reset_index(drop=True),
        "decoders": decoders.reset_index(drop=True),
        "exact": pd.DataFrame(exact),
    }


def _prime(g: Group, settings: Settings, seed: int) -> list[dict[str, Any]]:
    """The network of one prime, if it has one, and the decoders of its codes."""
    generator = np.random.default_rng((seed, g.prime))
    if g.prime - 1 <= settings.samples:
        x = 1 + generator.permutation(g.prime - 1)
    else:
        x = 1 + generator.choice(g.prime - 1, settings.samples, replace=False)
    numbers, powers = digits(x, g.bits), digits(g.power(x), g.bits)
    shifted = digits((x + g.prime // 3) % g.prime, g.bits)
    codes = {"one-way": powers, "two-way": shifted}
    row = {"bits": g.bits, "prime": g.prime}
    rows: list[dict[str, Any]] = []
    how: Any = {"batch": settings.batch, "steps": settings.steps, "rate": settings.rate}
    how["seed"] = seed
    if g.bits in settings.learnt:
        inputs = torch.from_numpy(2 * numbers - 1)[None]
        width = settings.network_width
        network = fit(inputs, torch.from_numpy(powers)[None], width=width, **how)
        with torch.no_grad():
            right = right_digits(network(inputs), torch.from_numpy(powers)[None])
            codes["hidden layer"] = network.hidden(inputs)[0].numpy()
        rows.append(_forward(row, "seen", right.all(2).flatten()))
        unseen = held_out(numbers, powers, width=width, **how)
        rows.append(_forward(row, "unseen", unseen.all(2).flatten()))
    for code, values in codes.items():
        told = held_out(values, numbers, width=settings.width, **how)
        for fold, right in enumerate(told):
            chance, share = g.guessing(), float(right.float().mean())
            found = {"kind": "decoder", "code": code, "fold": fold, "exponents": len(right)}
            found |= {"correct": int(right.all(1).sum()), "skill": (share - chance) / (1 - chance)}
            rows.append(row | found)
    return rows


def _forward(row: dict[str, Any], code: str, right: Tensor) -> dict[str, Any]:
    counts = {"exponents": len(right), "correct": int(right.sum())}
    return row | {"kind": "forward", "code": code, "fold": 0, **counts, "skill": float("nan")}


def _exact(g: Group, settings: Settings, seed: int) -> dict[str, Any]:
    """Decoders that know the group: all of x by Shanks's search, and whether it is even."""
    x: Integers = np.random.default_rng((seed, g.prime)).integers(1, g.prime, settings.logarithms)
    y = g.power(x)
    found = [g.logarithm(int(value)) for value in y]
    return {
        "bits": g.bits,
        "prime": g.prime,
        "logarithms": len(x),
        "correct": sum(int(a) == int(b) for a, (b, _) in zip(x, found, strict=True)),
        "multiplications": float(np.mean([steps for _, steps in found])),
        "even_correct": int((g.is_square(y) == (x % 2 == 0)).sum()),
        "even_multiplications": ((g.prime - 1) // 2).bit_length()
        + ((g.prime - 1) // 2).bit_count(),
    }


def figure(numbers: Numbers) -> Figure:
    """Networks on seen and unseen exponents; skill of decoders by code; work of exact decoders."""
    from polycode_plugins.experiments import drawing

    made, axes = drawing.panels(3, height=2.6)
    first, second, third = axes[0]
    forward, decoders, exact = (numbers[name] for name in ("forward", "decoders", "exact"))
    for code, colour, mark in zip(("seen", "unseen"), drawing.COLOURS, "os", strict=False):
        rows = forward[forward["code"] == code].sort_values("bits")
        first.plot(rows["bits"], rows["correct"] / rows["exponents"], f"{mark}-", color=colour,
                   label=f"{code} exponents")  # fmt: skip
    first.set_ylabel("share of g^x mod p that is right")
    first.set_ylim(-0.03, 1.08)
    first.set_xticks(sorted(forward["bits"].unique()))
    first.set_title("The network")
    first.legend(loc="center right")
    words = {"one-way": "code g^x mod p", "hidden layer": "network's hidden layer",
             "two-way": "code x + c mod p (control)"}  # fmt: skip
    for code, colour, mark in zip(CODES, drawing.COLOURS, "osD", strict=False):
        rows = decoders[decoders["code"] == code].groupby("bits")["skill"].agg(["mean", "std"])
        second.errorbar(rows.index, rows["mean"], rows["std"], color=colour, marker=mark,
                        capsize=2, label=words[code])  # fmt: skip
    second.axhline(0, color=drawing.FAINT, lw=0.8, ls=":")
    second.set_ylabel("skill at unseen x (0: guessing)")
    second.set_ylim(-0.25, 1.75)
    second.set_yticks([0, 0.5, 1])
    second.set_title("Learnt decoders of x")
    second.legend(loc="upper right")
    third.plot(exact["bits"], exact["prime"] / 2, ":", color=drawing.FAINT, label="trying every x")
    third.plot(exact["bits"], exact["multiplications"], "o-", color=drawing.COLOURS[0],
               label="all of x (Shanks)")  # fmt: skip
    third.plot(exact["bits"], exact["even_multiplications"], "s-", color=drawing.COLOURS[1],
               label="its last bit (Euler)")  # fmt: skip
    third.set_yscale("log")
    third.set_ylabel("multiplications")
    third.set_title("Exact decoders of x")
    third.legend(loc="upper left")
    for ax in (first, second, third):
        ax.set_xlabel("binary digits of p")
    drawing.letter([first, second, third])
    return made


def _learnt(code: str) -> Callable[[Numbers], Effect]:
    """Share of exponents that networks get right, all primes together."""

    def measure(numbers: Numbers) -> Effect:
        rows = numbers["forward"]
        rows = rows[rows["code"] == code]
        return share_effect(int(rows["correct"].sum()), int(rows["exponents"].sum()))

    return measure


def _skill(code: str) -> Callable[[Numbers], Effect]:
    """Mean skill, over folds and primes with more than twice the exponents that decoders saw."""

    def measure(numbers: Numbers) -> Effect:
        rows = numbers["decoders"]
        rows = rows[(rows["code"] == code) & (rows["prime"] > 2 * FOLDS * rows["exponents"])]
        if not len(rows):
            raise CannotJudge("decoders saw most exponents of every prime")
        return mean_effect(rows["skill"])

    return measure


def _leak(numbers: Numbers) -> Effect:
    """Mean skill over the folds of the largest prime with a network."""
    rows = numbers["decoders"]
    rows = rows[rows["code"] == "hidden layer"]
    return mean_effect(rows.loc[rows["bits"] == rows["bits"].max(), "skill"])


def _growth(numbers: Numbers) -> Effect:
    """Slope of log2 of the multiplications against binary digits."""
    from scipy.stats import linregress, t

    exact = numbers["exact"]
    if len(exact) < 3:
        raise CannotJudge("a slope needs three primes")
    line = linregress(exact["bits"], np.log2(exact["multiplications"]))
    half = float(t.ppf(0.975, len(exact) - 2)) * float(line.stderr)
    return Effect(float(line.slope), float(line.slope) - half, float(line.slope) + half)


def _exactly(column: str) -> Callable[[Numbers], Effect]:
    def measure(numbers: Numbers) -> Effect:
        exact = numbers["exact"]
        return share_effect(int(exact[column].sum()), int(exact["logarithms"].sum()))

    return measure


SOURCE = "Marshall & Kirchner 2024, supplement 2.2"
CLAIMS = (
    Claim(
        "A network learns the discrete exponential for small p",
        SOURCE,
        "share of all exponents for which every digit of g^x mod p is right",
        at_least(0.99),
        _learnt("seen"),
    ),
    Claim(
        "It learns the function, so that exponents it has not seen come out right",
        f"{SOURCE} (learnable, very likely)",
        "the same for exponents held out of training",
        at_least(0.5),
        _learnt("unseen"),
    ),
    Claim(
        "Decoders of the optimal code, g^x mod p and nothing else, fail where p is large",
        SOURCE,
        "mean skill at unseen x where p is over twice the samples; 0 is guessing, 1 is perfect",
        at_most(0.02),
        _skill("one-way"),
    ),
    Claim(
        "It is the code that is hard: the same decoders read a code that can be inverted (control)",
        "this package",
        "mean skill at unseen x for x + c mod p, where p is over twice the samples",
        at_least(0.8),
        _skill("two-way"),
    ),
    Claim(
        "The last layer of a trained network leaks nothing about x beyond g^x mod p",
        f"{SOURCE} (there a condition: the code is optimal)",
        "mean skill at unseen x from the last hidden layer, at the largest p that was learnt",
        at_most(0.02),
        _leak,
    ),
    Claim(
        "All that is needed is there: with enough work x can be decoded exactly",
        SOURCE,
        "share of exponents found by Shanks's search",
        at_least(0.95),
        _exactly("correct"),
    ),
    Claim(
        "The work of the exact decoder grows exponentially with the length of p",
        SOURCE,
        "slope of log2 of its multiplications against binary digits of p",
        at_least(0.4),
        _growth,
    ),
    Claim(
        "Not one bit of x can be decoded in polynomial time (claimed of encryption schemes only)",
        SOURCE,
        "share of exponents whose last bit Euler's criterion tells",
        at_most(0.6),
        _exactly("even_correct"),
    ),
)

EXPERIMENT = Experiment(
    name="one-way-code",
    title="A code that is easy to write and hard to read",
    source=SOURCE,
    settings={
        "smoke": Settings(
            learnt=(6,),
            larger=(10,),
            samples=256,
            network_width=64,
            width=64,
            steps=400,
            logarithms=5,
        ),
        "laptop": Settings(),
        "paper": Settings(
            learnt=(5, 6, 7, 8, 9, 10, 11, 12),
            larger=(14, 16, 20, 24, 28, 31),
            samples=65_536,
            network_width=1024,
            width=512,
            steps=20_000,
            logarithms=50,
        ),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "The paper gives the argument and no experiment. Here p and g are constants of each "
        "network (the paper has them as inputs), x and g^x mod p are binary digits, and p is the "
        "largest safe prime of its length, in whose group no shorter way to the logarithm is "
        "known than one that grows faster than any power of the length.",
        "Skill is the share of digits right, less that of guessing each as it is more frequent "
        "among all exponents, over what guessing leaves; every x is held out once.",
        "Where decoders have seen almost the whole table (up to 10 digits) they may do a little "
        "better than guessing; residues are related there, such as g^(x+1) = g g^x.",
        "That decoders fail shows that these decoders fail. The exact decoders show what is known "
        "in general: all of x for exponentially much work, and its last bit for little.",
        "What the last layer leaks, a longer training or a narrower layer need not: the argument "
        "asks for an optimal code, and training on the exponential does not give one by itself.",
    ),
)
