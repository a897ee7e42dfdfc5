"""A report in Chromium: what the page says, asks for and shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
A4 = {"width": 688, "height": 1000}  # the printed width of A4 without margins, in CSS pixels


class Visit:
    """A page with everything it said, asked for and ran."""

    def __init__(self, browser: Any, report: Path, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.said.append(f"error: {e}"))
        self.page.on("dialog", lambda d: (self.said.append(f"dialog: {d.message}"), d.dismiss()))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.goto(report.as_uri())

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def draw(self, charts: str = "figure.chart") -> Any:
        """Scroll through the page until every chart, or those named, is drawn; gives the page."""
        for chart in self.page.query_selector_all(charts):
            chart.scroll_into_view_if_needed()
            self.page.wait_for_function("c => c.dataset.state", arg=chart)
        states = self.page.eval_on_selector_all(charts, "all => all.map(c => c.dataset.state)")
        assert set(states) == {"drawn"}
        return self.page

    def clean(self, report: Path) -> bool:
        """Whether it neither complained nor asked for anything but itself."""
        requests = [u for u in self.asked if not u.startswith(("data:", "blob:"))]
        assert self.said == []
        assert requests == [report.as_uri()]
        return True


def width(page: Any) -> int:
    return page.evaluate("document.documentElement.scrollWidth")


def too_wide(page: Any) -> list[str]:
    """Elements that stick out of the page, but for those in a pane that scrolls."""
    return page.evaluate(
        """() => [...document.querySelectorAll("main *")]
          .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
          .filter((e) => !e.closest(".scroll") && !e.closest("svg"))
          .map((e) => e.outerHTML.slice(0, 90))"""
    )
