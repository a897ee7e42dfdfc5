"""A real short training with Lightning, with and without the callback."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from torch import nn

from polycode_plugins.training import History

lightning = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from polycode_plugins.training.lightning import LightningMonitor  # noqa: E402

pytestmark = [
    # Lightning's own: deprecations of torch's trees, and advice on workers and loggers.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]
SITES = ["network.2", "network.5"]


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 3),
        )  # fmt: skip
        self.losses: list[float] = []

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, index):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.losses.append(loss.item())
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, index):
        self.log("validation", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def run(folder, *, steps=8, part=False, accumulate=1, **options):
    lightning.seed_everything(0, verbose=False)
    module = Classifier()
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(64, 12, generator=draw)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    held = torch.randn(200, 12, generator=draw)
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, 16, shuffle=True)
    callbacks = []
    if options:
        settings = {"every": 3, "share": math.inf, "limit": 200, "batch_size": 200} | options
        measured = module.network if part else module
        sites = [site.removeprefix("network.") for site in SITES] if part else SITES
        callbacks = [LightningMonitor(measured, held, sites, **settings)]
    trainer = lightning.Trainer(
        max_steps=steps,
        callbacks=callbacks,
        logger=[CSVLogger(folder / "log", name="", version=0)],
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        log_every_n_steps=4,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader, torch.utils.data.DataLoader(data, 32))
    return module, callbacks[0] if callbacks else None


def logged(folder, column):
    """{step: value} of a column that the logger wrote."""
    with open(folder / "log" / "version_0" / "metrics.csv", newline="") as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row[column]}


def test_losses_are_bit_equal_and_numbers_reach_the_logger(tmp_path):
    plain, _ = run(tmp_path / "plain")
    watched, monitor = run(tmp_path, metrics=["spectrum", "cka"], out=tmp_path / "curves")
    assert watched.losses == plain.losses
    assert len(plain.losses) == 8
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert [p.step for p in monitor.history] == [0, 3, 6, 8]
    assert all(not p.problems for p in monitor.history)
    for site in SITES:
        for name in ("spectrum.exponent", "spectrum.effective_rank", "cka.to_first"):
            steps, numbers = monitor.history.curve(site, name)
            found = logged(tmp_path, f"polycode/{site}/{name}")
            assert found == {s: n[0] for s, n in zip(steps, numbers, strict=True)}
        low = logged(tmp_path, f"polycode/{site}/spectrum.exponent_low")
        assert sorted(low) == [0, 3, 6, 8]
        curve = monitor.history.curve(site, "cka.to_first")[1]
        assert curve[0][0] == pytest.approx(1.0)
        assert curve[-1][0] < 0.99
    assert logged(tmp_path, "loss") == logged(tmp_path / "plain", "loss")
    assert len(History.load(tmp_path / "curves")) == 4
    assert (tmp_path / "curves" / "training.html").stat().st_size > 10_000


def test_a_part_of_the_module_is_measured(tmp_path):
    _, whole = run(tmp_path / "whole", metrics=["spectrum"])
    _, part = run(tmp_path / "part", part=True, metrics=["spectrum"])
    for one, other in zip(whole.history, part.history, strict=True):
        for site in SITES:
            assert one.numbers[site] == other.numbers[site.removeprefix("network.")]


def test_a_step_of_several_batches_is_measured_once(tmp_path):
    module, monitor = run(tmp_path, steps=4, accumulate=2, every=2, metrics=["spectrum"])
    assert len(module.losses) == 8
    assert [p.step for p in monitor.history] == [0, 2, 4]


def test_a_measurement_that_raises_does_not_end_the_training(tmp_path, caplog):
    class Ruined(LightningMonitor):
        def on_train_start(self, trainer, pl_module):
            self.monitor._batch.batches[0].inputs.resize_(0)
            super().on_train_start(trainer, pl_module)

    plain, _ = run(tmp_path / "plain")
    globals()["LightningMonitor"], kept = Ruined, LightningMonitor
    try:
        module, monitor = run(tmp_path, every=1, metrics=["spectrum"])
    finally:
        globals()["LightningMonitor"] = kept
    assert module.losses == plain.losses
    assert "3 measurements in a row have failed" in monitor.monitor.left_off
    assert "nothing was measured at step 1" in caplog.text
