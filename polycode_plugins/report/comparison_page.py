"""The page of a comparison, below that of an analysis of the same model if there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from polycode_plugins.explainers.comparison.report import sections_of
from polycode_plugins.files import storage
from polycode_plugins.pages.pages import Page, render
from polycode_plugins.report.analysis_page import page_of as page_of_analysis
from polycode_plugins.runs.description import model_name

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.outcome import Comparison
    from polycode_plugins.runs.analysis import Analysis


def write(comparison: Comparison, path: Path, analysis: Analysis | None = None) -> Path:
    """Write the report of a comparison, below an analysis if one is given.

    The file appears whole or not at all.

    Raises:
        PluginError: when the report extra is not installed.
        StateError: when the file cannot be written.
    """
    return storage.write_text(path, render(page_of(comparison, analysis)))


def page_of(comparison: Comparison, analysis: Analysis | None = None) -> Page:
    """The page that reports a comparison, or an analysis and a comparison of one model."""
    sections = sections_of(comparison, analysis)
    run = dict(comparison.run)
    if analysis is None:
        title = f"Explanations of units of {model_name(run) or 'a network'}"
        made = f"polycode-plugins {run.get('polycode-plugins', '')} · {run.get('created', '')}"
        return Page(title, made, sections)
    above = page_of_analysis(analysis)
    *metrics, measured = above.sections
    *compared, record = sections
    return replace(above, sections=[*metrics, *compared, measured, record])
