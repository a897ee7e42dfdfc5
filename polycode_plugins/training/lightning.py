"""A callback of Lightning.

    from polycode_plugins.training.lightning import LightningMonitor

    trainer = Trainer(callbacks=[LightningMonitor(module, held_out, every=200, out="runs/curves")])
    trainer.fit(module, loader)

Needs Lightning (the package `lightning`, or `pytorch_lightning` where that is what is imported).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polycode_plugins.plugins import missing_extra
from polycode_plugins.training.history import History
from polycode_plugins.training.monitor import Monitor, Numbers, logger

if TYPE_CHECKING:

    class Callback:
        """Lightning's, which has no types here."""

else:
    try:
        # Each of both packages takes callbacks of its own class alone.
        if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
            from pytorch_lightning import Callback
        else:
            from lightning.pytorch import Callback
    except ModuleNotFoundError as error:
        raise missing_extra(
            "lightning", "lightning", "polycode_plugins.training.lightning"
        ) from error


class LightningMonitor(Callback):
    """A `Monitor` as a callback of Lightning's Trainer.

    Numbers go to all loggers of the trainer (TensorBoard, Weights & Biases, MLflow, CSV, ...). Of
    several processes the first one measures.

    Args:
        module: the LightningModule that is trained, or the part of it that is measured, such as
            `module.network`; it is called with what `data` holds.
        arguments: those of `Monitor` after the model: data, sites, metrics, every, share, out, ...

    Raises:
        PolycodeError: for what no measurement could read.
    """

    def __init__(self, module: Any, *arguments: Any, **options: Any) -> None:
        self.monitor = Monitor(module, *arguments, **options)

    @property
    def history(self) -> History:
        """What was measured so far."""
        return self.monitor.history

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The first measurement."""
        self._logged(self.monitor.begin, trainer)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A measurement, if it is due after this optimiser step."""
        self._logged(self.monitor.after, trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The last measurement, if there is time for it."""
        self._logged(self.monitor.end, trainer)

    @staticmethod
    def _logged(act: Callable[[int], Numbers], trainer: Any) -> None:
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        numbers = act(step)
        if not numbers:
            return
        for one in trainer.loggers:
            try:
                one.log_metrics(numbers, step=step)
            except Exception as error:  # a logger may raise anything: his training goes on
                logger.warning("step %d was measured and not logged: %s", step, error)
