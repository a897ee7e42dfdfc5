"""Can the controls tell a basis that matters from one that does not? Power and false alarms.

Networks whose answer is known. A word gives every neuron's input a value, and so does the word
before it, which a look-up of words cannot know. In the network without a basis the words' values
are Gaussian vectors: whatever the rotation, it is the same network. In the one with a basis each
neuron has words of its own. Strength mixes the two.

Behind a ReLU each neuron has few words, and rotated units are what decides. The other controls need
units that share kurtosis and sparsity with neurons: for them there is no nonlinearity, and each
neuron has many words, so that neurons are hardly more heavy-tailed than Gaussian directions are.

    python benchmarks/basis_or_distribution.py --runs 60
    python benchmarks/basis_or_distribution.py --runs 30 --units 160 --strengths 0
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.explainers.comparison.decisions import Decision
from polycode_plugins.explainers.comparison.outcome import Comparison

WORDS, WIDTH, LENGTH = 240, 48, 16
FEW, MANY = 6, 24  # words that are a neuron's own


class Planted(nn.Module):
    """Neurons behind a nonlinearity (or none) that read words by a basis of known worth.

    Args:
        strength: 0 for a network that is the same in every basis, 1 for words of its own for each
            neuron.
        nonlinear: whether a ReLU, with a threshold above the mean, stands behind what is read; if
            not, every neuron has mean 0.
        own: words of each neuron.
        width: neurons.
        seed: of the network.
    """

    def __init__(
        self, strength: float, *, nonlinear: bool, own: int, width: int = WIDTH, seed: int = 0
    ) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        alike = torch.randn(WORDS, width, generator=g)
        theirs = torch.zeros(WORDS, width)
        for neuron in range(width):
            theirs[torch.randperm(WORDS, generator=g)[:own], neuron] = 4.0
        if not nonlinear:
            theirs -= theirs.mean()
        table = strength * theirs / theirs.std() + (1 - strength**2) ** 0.5 * alike
        before = torch.randn(WORDS, width, generator=g)
        self.word, self.before = (nn.Embedding(WORDS, width) for _ in range(2))
        self.word.weight.data, self.before.weight.data = table, before
        self.read = nn.Identity()
        self.neurons = nn.ReLU() if nonlinear else nn.Identity()
        self.threshold = 1.0 if nonlinear else 0.0

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, position, width]."""
        earlier = torch.cat([tokens[:, :1], tokens[:, :-1]], dim=1)
        given = self.word(tokens) + self.before(earlier) - self.threshold
        made: Tensor = self.neurons(self.read(given))
        return made


class Words:
    """A tokenizer that knows each word by its number."""

    def decode(self, ids: Sequence[int]) -> str:
        """ " word17" for 17."""
        return "".join(f" word{i}" for i in ids)


@dataclass(frozen=True)
class Case:
    """Controls beside the neurons of one sort of network."""

    controls: tuple[str, ...]
    strength: float
    nonlinear: bool
    own: int

    def compared(self, seed: int, n_units: int) -> Comparison:
        """Neurons of a planted network beside the controls."""
        g = torch.Generator().manual_seed(10_000 + seed)
        texts = torch.randint(WORDS, (400, LENGTH), generator=g)
        network = Planted(
            self.strength, nonlinear=self.nonlinear, own=self.own, width=max(WIDTH, n_units),
            seed=seed,
        )  # fmt: skip
        return pc.compare(
            network, texts, "neurons",
            units=("neuron", *self.controls), n_units=n_units, tokenizer=Words(), seed=seed,
            floors=("shuffled",), judge=False, progress=False, batch_size=100,
        )  # fmt: skip

    def rows(self, runs: int, n_units: int) -> Iterator[dict[str, object]]:
        """What each control said in so many runs, each of another network and other texts."""
        counts = {control: Count() for control in self.controls}
        for seed in range(runs):
            made = self.compared(seed, n_units)
            said = {d.control: d for d in made.decisions()}  # the last is over all
            for control, count in counts.items():
                count.add(said.get(control))
        sort = {"strength": self.strength, "nonlinear": self.nonlinear, "own": self.own}
        for control, count in counts.items():
            yield {"control": control, **sort, "asked": n_units, "runs": runs, **count.row()}


@dataclass
class Count:
    """What a control said so far."""

    said: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    covered: int = 0
    differences: list[float] = field(default_factory=list)
    units: list[int] = field(default_factory=list)

    def add(self, decision: Decision | None) -> None:
        """One run more; None where there was no unit of that kind."""
        if decision is None:
            self.said["no match"] += 1
            return
        of = decision.contrast
        self.said[decision.belongs] += 1
        if of.difference is not None and of.interval is not None and of.p_value is not None:
            self.differences.append(of.difference)
            self.rejected += of.p_value < 0.05
            self.covered += of.interval[0] <= 0 <= of.interval[1]
            self.units.append(min(of.n))

    def row(self) -> dict[str, object]:
        """Means and shares over the runs whose difference has an interval."""
        n = max(1, len(self.differences))
        return {
            "with an interval": len(self.differences), "units": round(sum(self.units) / n, 1),
            "difference": round(sum(self.differences) / n, 4),
            "p < .05": round(self.rejected / n, 3),
            "interval holds 0": round(self.covered / n, 3), "said": dict(self.said),
        }  # fmt: skip


def cases(strengths: Sequence[float]) -> Iterator[Case]:
    """Each control where it can say something; matched directions behind a ReLU, too."""
    for strength in strengths:
        yield Case(("matched", "covariance"), strength, nonlinear=False, own=MANY)
        yield Case(("rotated", "matched"), strength, nonlinear=True, own=FEW)


def main() -> None:
    """Print what the controls said, one line of JSON a case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--units", type=int, default=40, help="pairs, or units of each kind")
    parser.add_argument("--controls", default="rotated,matched,covariance")
    parser.add_argument("--strengths", default="0,0.3,0.6,1")
    parser.add_argument(
        "--networks", default="relu,linear", help="with a nonlinearity, without, or both"
    )
    options = parser.parse_args()
    wanted = options.controls.split(",")
    for case in cases([float(s) for s in options.strengths.split(",")]):
        case = replace(case, controls=tuple(c for c in case.controls if c in wanted))
        network = "relu" if case.nonlinear else "linear"
        if case.controls and network in options.networks.split(","):
            for row in case.rows(options.runs, options.units):
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
