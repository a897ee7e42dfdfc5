"""Puts what scripts/gallery.py has made into the documentation's gallery (a hook of MkDocs)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

GALLERY = Path(__file__).resolve().parent.parent / "build" / "gallery"
_PLACE = "<!-- reports -->"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The gallery's page with a card for each report; others as they are."""
    return markdown.replace(_PLACE, cards()) if page.file.src_uri == "gallery.md" else markdown


def on_post_build(config: Any, **_: Any) -> None:
    """The reports, beside the page that links to them."""
    target = Path(config["site_dir"]) / "gallery"
    for name in _made():
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(GALLERY / f"{name}.html", target / f"{name}.html")


def cards() -> str:
    """A heading, a sentence, the link, and what a notebook shows, for each report."""
    parts = []
    for name, one in _made().items():
        link = f'<a href="gallery/{name}.html">Open the report</a>'
        parts.append(f"## {one['title']}\n\n{one['text']} {link}\n\n{one['card']}\n")
    return "\n".join(parts) or (
        "The reports have not been made for this build: `python scripts/gallery.py`, then "
        "`mkdocs build`.\n"
    )


def _made() -> dict[str, Any]:
    index = GALLERY / "gallery.json"
    made = json.loads(index.read_text("utf-8")) if index.is_file() else {}
    return {name: one for name, one in made.items() if (GALLERY / f"{name}.html").is_file()}
