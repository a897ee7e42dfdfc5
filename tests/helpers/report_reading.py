"""A report as a browser's parser sees it, and what must not be in one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "img", "wbr", "input", "br", "hr", "col"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    inside: tuple[str, ...] = ()
    parts: list[str] = field(default_factory=list)  # a page holds megabytes: joined once

    @cached_property
    def text(self) -> str:
        return "".join(self.parts)


@dataclass
class Reading(HTMLParser):
    """Every element with its text, in document order."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        inside = tuple(e.tag for e in self.open)
        element = Element(tag, {k: v or "" for k, v in attrs}, inside=inside)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1].tag != tag:
            self.mismatched.append(tag)
            return
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.parts.append(data)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        wanted = {k.rstrip("_").replace("_", "-"): v for k, v in attributes.items()}
        return [
            e
            for e in self.elements
            if e.tag == tag and all(e.attributes.get(k) == v for k, v in wanted.items())
        ]

    def one(self, tag: str, **attributes: str) -> Element:
        (found,) = self.all(tag, **attributes)
        return found

    def figures(self) -> dict[str, Any]:
        """The data of each chart, by the chart's id."""
        ids = [e.attributes["id"] for e in self.all("figure", class_="chart")]
        data = [json.loads(e.text) for e in self.all("script", type="application/json")]
        return dict(zip(ids, data, strict=True))


def read(html: str) -> Reading:
    reading = Reading()
    reading.feed(html)
    reading.close()
    return reading


def faults(html: str) -> list[str]:
    """What a report must not hold: requests, handlers, foreign elements, unbalanced markup."""
    reading = read(html)
    found = [f"</{tag}> closes nothing" for tag in reading.mismatched]
    found += [f"<{e.tag}> is never closed" for e in reading.open]
    found += ["a comment"] if "<!--" in html else []
    executed = [e for e in reading.all("script") if not e.attributes.get("type")]
    if len(executed) != 2:
        found.append(f"{len(executed)} scripts run")
    for element in reading.elements:
        if element.tag in {"b", "i", "u", "a", "svg", "iframe", "object", "form"} and not (
            element.tag == "a" and element.attributes.get("href", "").startswith("#")
        ):
            found.append(f"foreign element <{element.tag}>")
        for name, value in element.attributes.items():
            if name.startswith("on") or name == "style":
                found.append(f"attribute {name} on <{element.tag}>")
            if name in {"src", "href"} and not value.startswith(("data:", "#")):
                found.append(f"{name}={value!r} on <{element.tag}>")
    return found
