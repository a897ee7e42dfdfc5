"""One report for what a folder holds: an analysis, a comparison, both of one model, a history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from polycode_plugins.errors import StateError
from polycode_plugins.files import storage
from polycode_plugins.files.weights import format_of
from polycode_plugins.training.history import HISTORY, History

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.outcome import Comparison
    from polycode_plugins.runs.analysis import Analysis


def write_folder(
    folder: Path,
    path: Path,
    *,
    analysis: Analysis | None = None,
    comparison: Comparison | None = None,
) -> tuple[Path, str]:
    """Write the report of a folder, and say what of it the report leaves out.

    Args:
        folder: with a run, a comparison, or both; or with the history of a training run.
        path: of the report.
        analysis, comparison: where the caller has them; read from the folder otherwise. What is
            given is always reported, what else the folder holds only if it is of the same model.

    Returns:
        The path, and one sentence on what was left out ("" where nothing was).

    Raises:
        StateError: for a folder that holds neither, or something damaged or cut off where neither
            is given.
        PluginError: when the report extra is not installed.
    """
    held = any((folder / name).exists() for name in (storage.RUN, storage.COMPARISON))
    if (folder / HISTORY).is_file() and not held:
        return History.load(folder).report(path), ""
    given = analysis if analysis is not None else comparison
    other = "analysis" if comparison is not None else "comparison"
    try:
        analysis = analysis if analysis is not None else _analysis(folder, needed=given is None)
        comparison = comparison if comparison is not None else _comparison(folder)
    except StateError as error:
        if given is None:
            raise
        return given.report(path), f"the {other} in the same folder is left out: {error}"
    if analysis is None:
        assert comparison is not None  # _analysis raises where there is neither
        return comparison.report(path), ""
    if comparison is None:
        return analysis.report(path), ""
    first, second = (
        (run.get("model") or {}).get("fingerprint") for run in (analysis.run, comparison.run)
    )
    if first is not None and first == second:
        return comparison.report(path, analysis), ""
    kept = given if given is not None else analysis
    if first is None or second is None or format_of(first) != format_of(second):
        left_out = (
            f"{str(folder)!r} also holds the {other}, which this report leaves out: nothing proves "
            "that it is of the same weights (no fingerprint of them, or made by different "
            "versions); make both with one version"
        )
    else:
        left_out = (
            f"{str(folder)!r} also holds the {other} of another model, which this report leaves "
            "out; use one folder for each model"
        )
    return kept.report(path), left_out


def _analysis(folder: Path, *, needed: bool) -> Analysis | None:
    from polycode_plugins.runs.analysis import Analysis

    beside = not needed or (folder / storage.COMPARISON).is_file()
    if beside and not (folder / storage.RUN).is_file():
        return None
    if beside and not storage.load_run(folder).get("complete"):
        return None  # under way, or cut off: its own command says so
    return Analysis.load(folder)


def _comparison(folder: Path) -> Comparison | None:
    if not (folder / storage.COMPARISON).is_file():
        return None
    from polycode_plugins.explainers.comparison.outcome import Comparison

    return Comparison.load(folder)
