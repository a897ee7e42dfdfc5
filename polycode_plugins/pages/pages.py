"""The shell of a page: its parts, the templates that draw them, and what keeps the file closed.

A page is sections, a section is parts, and a part is a dataclass that names the template it is
drawn with. Foreign text may stand in every field: the templates escape all of it.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Protocol

from polycode_plugins.pages.charts import Chart, plotly_figure
from polycode_plugins.pages.documentation import address
from polycode_plugins.pages.escaping import breakable, csp_hash, data_uri, printable, script_json
from polycode_plugins.pages.palette import shades, variables
from polycode_plugins.pages.pictures import chart_image

if TYPE_CHECKING:
    from jinja2 import Environment

# Shares of the paper that columns of tables have, as classes: the page has no styles of elements.
_WIDTHS = f"@media print {{ {' '.join(f'.w{i} {{ width: {i}%; }}' for i in range(101))} }}\n"


class Part(Protocol):
    """Something a section holds; its template sees it as `part`."""

    template: ClassVar[str]


@dataclass(frozen=True)
class Prose:
    """Paragraphs of plain text; `interactive` ones are shown only where scripts run."""

    template: ClassVar[str] = "prose.html.j2"
    paragraphs: Sequence[str]
    interactive: bool = False


@dataclass(frozen=True)
class Warnings:
    """Sentences that say what not to trust."""

    template: ClassVar[str] = "warnings.html.j2"
    sentences: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Terms and what they stand for here, as (term, text)."""

    template: ClassVar[str] = "facts.html.j2"
    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Pictures:
    """Pictures as (name, data URI), with a sentence on how to read them, if there is one."""

    template: ClassVar[str] = "pictures.html.j2"
    title: str
    images: Sequence[tuple[str, str]]
    caption: str = ""


@dataclass(frozen=True)
class Figure:
    """One picture as a data URI, over the width of the page."""

    template: ClassVar[str] = "figure.html.j2"
    title: str
    image: str
    caption: str = ""


@dataclass(frozen=True)
class Copyable:
    """Text to take away as it is, with a button that copies it."""

    template: ClassVar[str] = "copyable.html.j2"
    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A chapter of a page.

    Attributes:
        id: unique on the page; letters, digits and hyphens.
        title: its heading.
        parts: what it holds, in order.
        documentation: the paragraph that explains it, see `polycode_plugins.pages.documentation`.
    """

    id: str
    title: str
    parts: Sequence[Part]
    documentation: str = ""


@dataclass(frozen=True)
class Page:
    """A page: its heading, the line under it, and its sections."""

    title: str
    subtitle: str
    sections: Sequence[Section]


# Of foreign text: what a terminal or an editor would obey, and what turns the text around.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def render(page: Page) -> str:
    """The page as one HTML file that asks the network for nothing.

    The policy in its head forbids every request, and every script but the page's own (by their
    hashes), so that foreign text which ever got past the escaping could still do nothing.

    Where plotly is not installed (the report extra), charts are pictures.
    """
    environment = _environment()
    source = environment.loader.get_source  # type: ignore[union-attr]
    scripts = {name: source(environment, f"{name}.js")[0] for name in ("boot", "report")}
    # What draws charts is 2 MB: a page without one does without.
    drawn = any(isinstance(part, Chart) for section in page.sections for part in section.parts)
    packed, plotly = _plotly() if drawn else ("", "")
    html = environment.get_template("page.html.j2").render(
        page=page,
        style=variables() + shades() + source(environment, "style.css")[0] + _WIDTHS,
        scripts=scripts,
        plotly=packed,
        hashes=[h for h in [*(csp_hash(script) for script in scripts.values()), plotly] if h],
    )
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", printable(html))


def interactive() -> bool:
    """Whether charts are drawn by plotly; they are pictures without it."""
    return find_spec("plotly") is not None


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"chart_image": chart_image}
    environment.filters |= {
        "address": address,
        "breakable": breakable,
        "figure": plotly_figure,
        "script_json": script_json,
    }
    return environment


@cache
def _plotly() -> tuple[str, str]:
    """Plotly.js, gzipped, as base64, and its hash for the policy; "" where it is not installed.

    Charts are pictures then. Packed it takes 2 MB instead of 5, and a browser reads the page
    without parsing it first.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return "", ""
    script: str = get_plotlyjs()
    packed = data_uri(gzip.compress(script.encode("utf-8"), 6, mtime=0), "application/gzip")
    return packed.partition(",")[2], csp_hash(script)
