"""Metrics while a network is trained: measured on the same batch every so many steps, and logged.

`Monitor` is for a loop of one's own; `training.trainer.TrainerMonitor` is a callback of
transformers' Trainer, `training.lightning.LightningMonitor` one of Lightning, each of which needs
its library. What a run has measured is a `History`.
"""

from polycode_plugins.training.history import History, Point
from polycode_plugins.training.monitor import Monitor

__all__ = ["History", "Monitor", "Point"]
