"""Take the README's picture of a report: `python scripts/screenshot_report.py REPORT OUT.png`.

Needs Chromium (`apt-get install chromium`), and Playwright and Pillow from the dev extra. Charts
are drawn first, and the picture begins with `--section` where one is named.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1160, help="of the window, in CSS pixels")
    parser.add_argument("--height", type=int, default=1560, help="of the picture, in CSS pixels")
    parser.add_argument("--section", help="id to begin with, for example metric-0")
    parser.add_argument("--dark", action="store_true", help="in the dark colour scheme")
    options = parser.parse_args()
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        print("Chromium is not installed (apt-get install chromium)", file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        page = browser.new_page(
            viewport={"width": options.width, "height": 900},
            color_scheme="dark" if options.dark else "light",
        )
        page.goto(options.report.resolve().as_uri())
        draw(page)
        top = 0.0
        if options.section is not None:
            box = page.locator(f"#{options.section} h2").bounding_box()
            assert box is not None
            top = box["y"] - 24
        clip = {"x": 0, "y": top, "width": options.width, "height": options.height}
        picture = page.screenshot(full_page=True, clip=clip)
        browser.close()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save(picture, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")
    return 0


def draw(page: Page) -> None:
    """Bring every chart into view and wait until it is drawn; then go back to the top."""
    for chart in page.query_selector_all("figure.chart"):
        chart.scroll_into_view_if_needed()
        page.wait_for_function("chart => chart.dataset.state", arg=chart)
    page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")


def save(picture: bytes, out: Path) -> None:
    """Without the alpha channel, which a page has no use for."""
    Image.open(io.BytesIO(picture)).convert("RGB").save(out, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
