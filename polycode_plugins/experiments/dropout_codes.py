"""What three codes carry under dropout, by theory and by sending messages through them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from polycode_plugins import theory
from polycode_plugins.experiments.base import Experiment, parts
from polycode_plugins.experiments.claims import (
    CannotJudge,
    Claim,
    Criterion,
    Effect,
    Numbers,
    at_least,
    at_most,
    share_effect,
)
from polycode_plugins.experiments.finite_codes import decode, random_code, reliable_symbols, send

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CODES = ("monosemantic", "superposition", "polysemantic")
_BOUNDS: tuple[Literal["lower", "additive", "exact", "upper"], ...] = (
    "lower",
    "additive",
    "exact",
    "upper",
)


@dataclass(frozen=True)
class Settings:
    """Settings.

    sizes: numbers of neurons m.
    rates: dropout rates D.
    prime: values K of a neuron.
    messages: sent through each code.
    failure: chance of losing a message that the polysemantic code is laid out for.
    checked_values: values K at which Theorem 3 is compared with the Blahut-Arimoto algorithm.
    """

    sizes: tuple[int, ...] = (4, 8, 16, 32, 64, 96)
    rates: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.6)
    prime: int = 257
    messages: int = 200
    failure: float = 0.01
    checked_values: tuple[int, ...] = (2, 4, 16, 64)


def run(settings: Settings, seed: int, folder: Path) -> Numbers:
    """`codes`: what messages came through; `bounds`: Theorem 3 beside Blahut-Arimoto."""
    import pandas as pd

    def sent(size: str) -> pd.DataFrame:
        rows = [
            _send(code, int(size), rate, settings, np.random.default_rng((seed, int(size), i)))
            for i, (code, rate) in enumerate(itertools.product(CODES, settings.rates))
        ]
        return pd.DataFrame(rows)

    codes = parts(folder, "codes", [str(m) for m in settings.sizes], sent).drop(columns="part")
    bounds = []
    for values, rate in itertools.product(settings.checked_values, settings.rates):
        bits = float(np.log2(values))
        found = theory.blahut_arimoto(theory.dropout_channel(values, rate))
        row: dict[str, Any] = {"values": values, "rate": rate, "blahut_arimoto": found.bits}
        row |= {bound: theory.dropout_capacity(bits, rate, bound) for bound in _BOUNDS}
        bounds.append(row)
    return {"codes": codes, "bounds": pd.DataFrame(bounds)}


def _send(
    code: str, size: int, rate: float, settings: Settings, generator: np.random.Generator
) -> dict[str, Any]:
    """Send messages through one code; bits are those of symbols that arrived and are right."""
    prime = settings.prime
    symbols = size
    if code == "polysemantic":
        symbols = reliable_symbols(size, rate, prime, settings.failure)
    whole, right = 0, 0
    if symbols:
        matrix = np.eye(size, dtype=np.int64)
        if code != "monosemantic":
            matrix = random_code(size, symbols, prime, generator)
        messages = generator.integers(1, prime, (settings.messages, symbols))
        arrived = send(matrix, messages, rate, prime, generator)
        found, known = decode(matrix, arrived, prime, dropout=rate > 0)
        correct = known & (found == messages)
        whole, right = int(correct.all(axis=1).sum()), int(correct.sum())
    bits = float(np.log2(prime - 1))
    return {
        "code": code,
        "size": size,
        "rate": rate,
        "symbols": symbols,
        "messages": settings.messages,
        "whole": whole,
        "bits_sent": symbols * bits,
        "bits_received": right / settings.messages * bits,
        "bits_expected": _expected(code, size, rate, symbols, prime) * bits,
        "channel_capacity": size * theory.dropout_capacity(float(np.log2(prime)), rate),
        "upper_bound": size * theory.dropout_capacity(float(np.log2(prime)), rate, "upper"),
    }


def _expected(code: str, size: int, rate: float, symbols: int, prime: int) -> float:
    """Symbols that theory expects to arrive."""
    from scipy.stats import binom

    if code == "monosemantic":
        return size * (1 - rate)
    if rate == 0:
        return symbols
    heard = (1 - rate) * (1 - 1 / prime)  # a sum that is 0 by chance is taken for a loss
    return symbols * float(binom.sf(symbols - 1, size, heard))


def figure(numbers: Numbers) -> Figure:
    """Bits received by size for the codes without redundancy (a) and with it (b); losses (c)."""
    from polycode_plugins.experiments import drawing

    codes = numbers["codes"]
    made, axes = drawing.panels(3, height=2.5)
    first, second, third = axes[0]
    rates = sorted(codes["rate"].unique())
    for number, rate in enumerate(rates):
        colour = drawing.shade(number / max(len(rates) - 1, 1))
        for code, ax, mark, line in (
            ("monosemantic", first, "o", "-"),
            ("superposition", first, "*", ":"),
            ("polysemantic", second, "s", "-"),
        ):
            rows = codes[(codes["code"] == code) & (codes["rate"] == rate)].sort_values("size")
            ax.plot(rows["size"], rows["bits_expected"], line, color=colour, lw=1)
            size = 6 if mark == "*" else 3.5
            ax.plot(rows["size"], rows["bits_received"], mark, color=colour, ms=size, mec="white",
                    mew=0.4)  # fmt: skip
        rows = codes[(codes["code"] == "polysemantic") & (codes["rate"] == rate)]
        rows = rows.sort_values("size")
        second.plot(rows["size"], rows["upper_bound"], "--", color=colour, lw=0.8)
        second.plot([], [], "s-", color=colour, label=f"D = {rate:g}")
    first.plot([], [], "o-", color=drawing.INK, label="monosemantic")
    first.plot([], [], "*:", color=drawing.INK, ms=6, label="superposition")
    second.plot([], [], "--", color=drawing.FAINT, lw=0.8, label="(1-D) C m")
    for ax in (first, second):
        ax.set_xlabel("neurons m")
        ax.set_ylim(0, codes["upper_bound"].max() * 1.05)
        ax.legend(loc="upper left", handlelength=1.6)
    first.set_ylabel("bits received per message")
    first.set_title("No redundancy")
    second.set_title("Redundancy (polysemantic)")
    rate = min((r for r in rates if r > 0), key=lambda r: abs(r - 0.2), default=rates[0])
    for code, mark, colour in zip(CODES, "o*s", drawing.COLOURS, strict=False):
        rows = codes[(codes["code"] == code) & (codes["rate"] == rate) & (codes["symbols"] > 0)]
        rows = rows.sort_values("size")
        third.plot(rows["size"], rows["whole"] / rows["messages"], f"{mark}-", color=colour,
                   ms=6 if mark == "*" else 3.5, label=code)  # fmt: skip
    third.set_xlabel("neurons m")
    third.set_ylabel("share of messages")
    third.set_title(f"Received whole, D = {rate:g}")
    third.set_ylim(-0.03, 1.03)
    third.legend(loc="center right")
    drawing.letter([first, second, third])
    return made


def _largest(numbers: Numbers, code: str) -> pd.DataFrame:
    """Rows of a code at the largest size, under dropout."""
    codes = numbers["codes"]
    if codes["size"].max() < 64:
        raise CannotJudge(
            "that needs 64 neurons; in smaller networks none may be dropped by chance"
        )
    used = (codes["code"] == code) & (codes["rate"] > 0) & (codes["symbols"] > 0)
    rows: pd.DataFrame = codes[used & (codes["size"] == codes["size"].max())]
    return rows


def _whole(code: str, pick: str) -> Any:
    """Share of messages received whole at the largest size: at the rate where it is worst, best."""

    def measure(numbers: Numbers) -> Effect:
        rows = _largest(numbers, code).sort_values("whole")
        row = rows.iloc[0 if pick == "worst" else -1]
        return share_effect(int(row["whole"]), int(row["messages"]))

    return measure


def _efficiency(numbers: Numbers) -> Effect:
    """Bits received over (1 - D) C m in the limit of large m.

    A code of finite length loses a share a(D) / sqrt(m); the limit is the common intercept.
    """
    from scipy.stats import t

    codes = numbers["codes"]
    rows = codes[(codes["code"] == "polysemantic") & (codes["rate"] > 0) & (codes["size"] >= 16)]
    if rows["size"].nunique() < 3:
        raise CannotJudge("a limit needs three sizes from 16 neurons on")
    share = (rows["bits_received"] / rows["upper_bound"]).to_numpy()
    loss = (rows["rate"].to_numpy()[:, None] == rows["rate"].unique()) / np.sqrt(
        rows["size"].to_numpy()[:, None]
    )
    design = np.column_stack([np.ones(len(rows)), loss])
    found, *_ = np.linalg.lstsq(design, share, rcond=None)
    freedom = len(rows) - design.shape[1]
    noise = float(((share - design @ found) ** 2).sum()) / freedom
    error = float(np.sqrt(noise * np.linalg.inv(design.T @ design)[0, 0]))
    half = float(t.ppf(0.975, freedom)) * error
    return Effect(float(found[0]), float(found[0]) - half, float(found[0]) + half)


def _violation(numbers: Numbers) -> Effect:
    table = numbers["bounds"]
    exact = table["blahut_arimoto"]
    return Effect(float(np.maximum(table["lower"] - exact, exact - table["upper"]).max()))


def _exactness(numbers: Numbers) -> Effect:
    table = numbers["bounds"]
    return Effect(float((table["blahut_arimoto"] - table["exact"]).abs().max()))


FIGURE = "Marshall & Kirchner 2024, figure 2"
THEOREM = "Marshall & Kirchner 2024, Theorem 3"
CLAIMS = (
    Claim(
        "Dropout corrupts what a monosemantic code carries",
        FIGURE,
        "largest share of messages received whole, largest network, any dropout",
        at_most(0.05),
        _whole("monosemantic", "best"),
    ),
    Claim(
        "Dropout corrupts what a superposition code without redundancy carries",
        FIGURE,
        "largest share of messages received whole, largest network, any dropout",
        at_most(0.05),
        _whole("superposition", "best"),
    ),
    Claim(
        "A polysemantic code recovers from dropout",
        FIGURE,
        "smallest share of messages received whole, largest network, any dropout",
        at_least(0.9),
        _whole("polysemantic", "worst"),
    ),
    Claim(
        "The capacity of m neurons tends to (1 - D) C m",
        THEOREM,
        "bits received / (1 - D) C m by the polysemantic code, extrapolated to large m",
        Criterion(0.9, 1.1),
        _efficiency,
    ),
    Claim(
        "The capacity of a neuron lies between (1 - eps)(1 - D) C and (1 - D) C",
        THEOREM,
        "largest violation by the capacity found with Blahut-Arimoto, in bits",
        at_most(1e-6),
        _violation,
    ),
    Claim(
        "It has the closed form that this package gives (not in the paper)",
        "theory.dropout_capacity",
        "largest difference from Blahut-Arimoto, in bits",
        at_most(1e-6),
        _exactness,
    ),
)

EXPERIMENT = Experiment(
    name="dropout-codes",
    title="Capacity under dropout of three codes",
    source="Marshall & Kirchner 2024, figure 2b and 2c",
    settings={
        "smoke": Settings(sizes=(4, 8, 16), messages=40, checked_values=(2, 4)),
        "laptop": Settings(),
        "paper": Settings(sizes=(4, 8, 16, 32, 64, 128, 256), messages=500),
    },
    run=run,
    figure=figure,
    claims=CLAIMS,
    remarks=(
        "The paper does not say how it computed the figure. Here a neuron takes 257 values, one of "
        "them 0, as in Theorem 3. Monosemantic: each symbol has a neuron of its own. "
        "Superposition: each symbol is spread over all neurons, filled to the brim (a dense random "
        "code of rate 1). Polysemantic: the same with as many symbols as survive with 99%.",
        "Marks are messages that were sent and decoded exactly, lines are theory.",
        "Counted symbol by symbol the monosemantic code delivers (1 - D) C m bits as well (a), "
        "which no code exceeds: what it lacks is that nobody can rely on any one of them (c).",
    ),
)
