"""What the report of an analysis says: what was measured, a section for each metric, the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polycode_plugins.metrics.chapter import chapter_of
from polycode_plugins.pages.pages import Page, Section
from polycode_plugins.report.record import made, overview, record_section, title
from polycode_plugins.report.summary import summary
from polycode_plugins.runs.notebook import views_of

if TYPE_CHECKING:
    from polycode_plugins.runs.analysis import Analysis


def page_of(analysis: Analysis) -> Page:
    """The page that reports an analysis."""
    views = views_of(analysis)
    sections = [
        summary(analysis, views),
        overview(analysis, [view.title for view in views]),
        *(
            Section(view.id, view.title, chapter_of(view), type(view.results[0]).documentation)
            for view in views
        ),
        record_section(analysis),
    ]
    return Page(title(analysis), made(analysis), sections)
