"""What is killed: runs that take a second, what came of them, and whether a folder is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins import experiments
from polycode_plugins.experiments import claims, training
from polycode_plugins.experiments.base import Experiment, parts
from polycode_plugins.files import storage

Work = Callable[[Path], None]
ROWS = 160  # of an analysis, eight a batch


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24))


def analyze(folder: Path, **options: object) -> None:
    data = torch.randn(ROWS, 12, generator=torch.Generator().manual_seed(1))
    metric = pc.metrics.Spectrum(fit="huber", ranks=(1, 500))
    given = {"batch_size": 8, "out": folder, "progress": False, **options}
    pc.analyze(network(), data, metric, ["0", "2"], **given)  # type: ignore[arg-type]


def analyzed(folder: Path) -> str:
    """Everything that the results are, and were made of."""
    found = pc.Analysis.load(folder)
    digest = hashlib.sha256(json.dumps(found.run["rows"]).encode())
    for name, tensor in sorted(found.statistics.state().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    for _, _, *label_and_scalars, fields in found.table():
        # Of an iteration whose last digits depend on where in memory it works.
        fields = {k: _rounded(v) if k == "first_direction" else v for k, v in fields.items()}
        digest.update(json.dumps([label_and_scalars, fields]).encode())
    return digest.hexdigest()


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.8g}"
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def whole_run(folder: Path) -> None:
    """Raise StateError where a folder's run, finished or not, or a part of it is not whole."""
    hidden = folder / storage.PARTS
    for home in (folder, *(hidden.iterdir() if hidden.is_dir() else ())):
        if (home / storage.RUN).is_file():
            run = storage.load_run(home)
            tensors = storage.load_state(home, run)
            assert all(tensors[name].numel() >= 0 for name in tensors)
            if run.get("complete"):
                storage.load(home)


def compare(folder: Path, limit: int = 250, **options: object) -> None:
    pc.explainers.compare(
        None, None, ["blocks.1.mlp.hook_post"], n_units=3, limit=limit, judge=False,
        floors=("constant",), out=folder, progress=False, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def compared(folder: Path) -> str:
    record = json.loads((folder / storage.COMPARISON).read_text())
    names = (storage.UNITS, storage.RECORDS)  # which may wait still
    content = b"".join(storage.checked(folder, name, record).read_bytes() for name in names)
    return hashlib.sha256(content).hexdigest()


def whole_comparison(folder: Path) -> None:
    if (folder / storage.COMPARISON).is_file():
        pc.Comparison.load(folder)


@dataclass(frozen=True)
class Settings:
    steps: int = 30


def draw(settings: Settings, seed: int, folder: Path):  # type: ignore[no-untyped-def]
    import pandas as pd

    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.fill_(0.1)
        model.bias.zero_()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)

    def loss(step: int) -> torch.Tensor:
        drawn = torch.randn(16, 4)
        return (model(drawn) - drawn.sum(dim=1, keepdim=True)).square().mean()

    losses = training.train(
        model, optimizer, loss, settings.steps, seed=seed, path=folder / "net.safetensors", every=5
    )
    table = parts(folder, "draws", ["a", "b"], lambda key: pd.DataFrame({"x": [ord(key), seed]}))
    return {"losses": pd.DataFrame(losses, columns=["step", "loss"]), "draws": table}


def figure(numbers):  # type: ignore[no-untyped-def]
    from polycode_plugins.experiments import drawing

    made, axes = drawing.panels(1, width=drawing.ONE)
    axes[0][0].plot(numbers["losses"]["loss"])
    return made


EXPERIMENT = Experiment(
    "made-up", "A training", "nowhere", dict.fromkeys(experiments.SCALES, Settings()), draw, figure,
    (claims.Claim("It ends <low>", "nowhere", "loss", claims.at_least(0.0),
                  lambda numbers: claims.mean_effect(numbers["losses"]["loss"])),),
)  # fmt: skip


def reproduce(folder: Path, **options: object) -> None:
    experiments.reproduce(EXPERIMENT, out=folder, **options)  # type: ignore[arg-type]


def reproduced(folder: Path) -> str:
    names = ("losses.csv", "draws.csv", "verdicts.csv", "made-up.png", "made-up.pdf")
    content = b"".join((folder / EXPERIMENT.name / name).read_bytes() for name in names)
    return hashlib.sha256(content).hexdigest()
