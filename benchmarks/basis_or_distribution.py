"""Can the controls tell a basis that matters from one that does not? Power and false alarms.

Networks whose answer is known. A word gives every neuron's input a value, and so does the word
before it, which a look-up of words cannot know. In the network without a basis the words' values
are Gaussian vectors: whatever the rotation, it is the same network. In the one with a basis each
neuron has words of its own. Strength mixes the two.

    python benchmarks/basis_or_distribution.py --runs 60
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.explainers.comparison.outcome import Comparison

WORDS, WIDTH, LENGTH, OWN = 240, 48, 16, 6


class Planted(nn.Module):
    """Neurons behind a nonlinearity (or none) that read words by a basis of known worth.

    Args:
        strength: 0 for a network that is the same in every basis, 1 for words of its own for each
            neuron.
        nonlinear: whether a ReLU stands behind what is read.
        seed: of the network.
    """

    def __init__(self, strength: float, *, nonlinear: bool = True, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        alike = torch.randn(WORDS, WIDTH, generator=g)
        own = torch.zeros(WORDS, WIDTH)
        for neuron in range(WIDTH):
            own[torch.randperm(WORDS, generator=g)[:OWN], neuron] = 4.0
        table = strength * own / own.std() + (1 - strength**2) ** 0.5 * alike
        before = torch.randn(WORDS, WIDTH, generator=g)
        self.word, self.before = (nn.Embedding(WORDS, WIDTH) for _ in range(2))
        self.word.weight.data, self.before.weight.data = table, before
        self.read = nn.Identity()
        self.neurons = nn.ReLU() if nonlinear else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, position, WIDTH]."""
        earlier = torch.cat([tokens[:, :1], tokens[:, :-1]], dim=1)
        made: Tensor = self.neurons(self.read(self.word(tokens) + self.before(earlier) - 1))
        return made


class Words:
    """A tokenizer that knows each word by its number."""

    def decode(self, ids: Sequence[int]) -> str:
        """ " word17" for 17."""
        return "".join(f" word{i}" for i in ids)


def compared(
    control: str, strength: float, seed: int, *, nonlinear: bool, n_units: int = 40
) -> Comparison:
    """Neurons of a planted network beside one control."""
    g = torch.Generator().manual_seed(10_000 + seed)
    texts = torch.randint(WORDS, (400, LENGTH), generator=g)
    return pc.compare(
        Planted(strength, nonlinear=nonlinear, seed=seed), texts, "neurons",
        units=("neuron", control), n_units=n_units, tokenizer=Words(), seed=seed,
        floors=("shuffled",), judge=False, progress=False, batch_size=100,
    )  # fmt: skip


def cases() -> Iterator[tuple[str, float, bool]]:
    """Controls by strength, behind a nonlinearity and without."""
    for strength in (0.0, 0.3, 0.6, 1.0):
        yield "rotated", strength, True
    for strength in (0.0, 1.0):
        yield "matched", strength, True
        yield "matched", strength, False
        yield "covariance", strength, False


def main() -> None:
    """Print what the controls said, one line of JSON a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--units", type=int, default=40)
    parser.add_argument("--controls", default="rotated,matched,covariance")
    options = parser.parse_args()
    for control, strength, nonlinear in cases():
        if control not in options.controls.split(","):
            continue
        said: Counter[str] = Counter()
        differences, rejected, covered, pairs = [], 0, 0, []
        for seed in range(options.runs):
            made = compared(control, strength, seed, nonlinear=nonlinear, n_units=options.units)
            if control not in made.kinds:
                said["no match"] += 1
                continue
            decision = made.decisions()[-1]
            of = decision.contrast
            said[decision.belongs] += 1
            if of.difference is not None and of.interval is not None and of.p_value is not None:
                differences.append(of.difference)
                rejected += of.p_value < 0.05
                covered += of.interval[0] <= 0 <= of.interval[1]
                pairs.append(min(of.n))
        n = max(1, len(differences))
        line = {
            "control": control, "strength": strength, "nonlinear": nonlinear, "said": dict(said),
            "difference": round(sum(differences) / n, 4), "p < .05": round(rejected / n, 3),
            "interval holds 0": round(covered / n, 3), "units": sum(pairs) / max(1, len(pairs)),
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
