"""A callback of transformers' Trainer.

    from polycode_plugins.training.trainer import TrainerMonitor

    trainer = Trainer(model, arguments, train_dataset=...)
    trainer.add_callback(TrainerMonitor(trainer, held_out, every=200, out="runs/curves"))
    trainer.train()

Needs transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polycode_plugins.plugins import missing_extra
from polycode_plugins.training.history import History
from polycode_plugins.training.monitor import Monitor, Numbers, logger

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise missing_extra("transformers", "trainer", "polycode_plugins.training.trainer") from error


class TrainerMonitor(TrainerCallback):  # type: ignore[misc]
    """A `Monitor` as a callback of transformers' Trainer, or of one of its subclasses.

    Numbers go through `trainer.log`, so to `trainer.state.log_history` and whatever the run reports
    to (TensorBoard, Weights & Biases, MLflow, trackio). Of several processes the first measures.

    Args:
        trainer: the trainer that it is added to; its model is measured.
        arguments: those of `Monitor` after the model: data, sites, metrics, every, share, out, ...

    Raises:
        PolycodeError: for what no measurement could read.
    """

    def __init__(self, trainer: Any, *arguments: Any, **options: Any) -> None:
        self._trainer = trainer
        self._own = bool(trainer.is_world_process_zero())
        self._ended = False
        self.monitor = Monitor(trainer.model, *arguments, **options)

    @property
    def history(self) -> History:
        """What was measured so far."""
        return self.monitor.history

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The first measurement."""
        self._ended = False
        self._logged(self.monitor.begin, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """A measurement, if it is due, or the last one."""
        if state.global_step < state.max_steps:
            self._logged(self.monitor.after, state, control)
        else:
            self._end(state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The last measurement, if training is stopped by what was found."""
        if control.should_training_stop:
            self._end(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The last measurement, if training stops here."""
        if control.should_training_stop:
            self._end(state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The last measurement, if there is time for it and nothing said before that it is."""
        self._end(state, control)

    def _end(self, state: Any, control: Any) -> None:
        # Before `on_train_end`, where reporters close their files, some before they have this one.
        if not self._ended:
            self._ended = True
            self._logged(self.monitor.end, state, control)

    def _logged(self, act: Callable[[int], Numbers], state: Any, control: Any) -> None:
        if not self._own:
            return
        numbers = act(state.global_step)
        if not numbers:
            return
        # Logging clears the wish to log, which is of the losses of this step.
        wished = control.should_log
        try:
            self._trainer.log(numbers)
        except Exception as error:  # a logger may raise anything: his training goes on
            logger.warning("step %d was measured and not logged: %s", state.global_step, error)
        control.should_log = wished
