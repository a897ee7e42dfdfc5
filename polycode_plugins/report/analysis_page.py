"""What the report of an analysis says: what was measured, a section for each metric, the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polycode_plugins.metrics.chapter import View, chapter_of
from polycode_plugins.pages.pages import Page, Section
from polycode_plugins.report.record import made, overview, record_section, title
from polycode_plugins.report.summary import summary

if TYPE_CHECKING:
    from polycode_plugins.runs.analysis import Analysis


def page_of(analysis: Analysis) -> Page:
    """The page that reports an analysis."""
    views = views_of(analysis)
    sections = [
        summary(analysis, views),
        overview(analysis),
        *(Section(view.id, view.title, chapter_of(view)) for view in views),
        record_section(analysis),
    ]
    return Page(title(analysis), made(analysis), sections)


def views_of(analysis: Analysis) -> list[View]:
    """Each metric of the analysis with its results."""
    return [
        View(
            f"metric-{number}",
            metric.label,
            metric,
            analysis.sites,
            [analysis.results[site.name][metric.label] for site in analysis.sites],
        )
        for number, metric in enumerate(analysis.metric_objects)
    ]
