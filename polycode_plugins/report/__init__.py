"""The HTML report: one self-contained file, for screens, phones and paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from polycode_plugins.files import storage
from polycode_plugins.files.paths import given

if TYPE_CHECKING:
    from polycode_plugins.runs.analysis import Analysis
    from polycode_plugins.runs.difference import RunDifference
    from polycode_plugins.training.history import History

__all__ = ["write", "write_difference", "write_training"]


def write(analysis: Analysis, path: str | Path) -> Path:
    """Write the report of an analysis; the file appears whole or not at all.

    Raises:
        PluginError: when the report extra is not installed.
        StateError: when the file cannot be written.
    """
    from polycode_plugins.pages.pages import render
    from polycode_plugins.report.analysis_page import page_of

    return storage.write_text(given(path), render(page_of(analysis)))


def write_difference(found: RunDifference, path: str | Path) -> Path:
    """Write two runs side by side; the file appears whole or not at all.

    Raises:
        PluginError: when the report extra is not installed.
        StateError: when the file cannot be written.
    """
    from polycode_plugins.pages.pages import render
    from polycode_plugins.report.difference_page import page_of

    return storage.write_text(given(path), render(page_of(found)))


def write_training(history: History, path: str | Path) -> Path:
    """Write the curves of a training run; the file appears whole or not at all.

    Raises:
        PluginError: when the report extra is not installed.
        StateError: when the file cannot be written.
    """
    from polycode_plugins.pages.pages import render
    from polycode_plugins.report.training_page import page_of

    return storage.write_text(given(path), render(page_of(history)))
