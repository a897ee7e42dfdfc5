"""Natural English out of Debian packages: paragraphs, with the document that each is from."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

LEAST_WORDS = 20
MOST = 4000  # paragraphs of one source
LEAST_LETTERS = 0.9  # of the characters: tables, code and lists of addresses have fewer


@dataclass(frozen=True)
class Package:
    """A Debian package and its licence in a phrase; the whole is in its `copyright` file."""

    name: str
    version: str
    sha256: str
    licence: str


PACKAGES = (
    Package(
        "debian-handbook",
        "11.20220922",
        "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa",
        "GPL-2.0+ or CC-BY-SA-3.0",
    ),
    Package(
        "anarchism",
        "15.3-3",
        "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948",
        "GPL-2",
    ),
    Package(
        "dict-foldoc",
        "20230119-1",
        "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3",
        "GFDL-1.1+",
    ),
    Package(
        "dict-jargon",
        "4.4.7-3.1",
        "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1",
        "public domain",
    ),
    Package(
        "fortunes",
        "1:1.99.1-7.3",
        "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5",
        "a collection of quotations; see its copyright file",
    ),
)
# Drawings, tables, other languages, and jokes about kinds of people.
_LEFT_OUT = {"art", "ascii-art", "translate-me", "ethnic", "men-women", "drugs", "definitions"}


def describe() -> str:
    """One line: the packages and their licences."""
    return "natural text of " + ", ".join(f"{p.name} ({p.licence})" for p in PACKAGES)


def write(trees: dict[str, Path], folder: Path) -> None:
    """Write `texts.jsonl` (a paragraph a line) and `documents.jsonl` (a document a line).

    A paragraph has the fields `text`, `source` (the package) and `document`; a document has the
    text of all its paragraphs, joined by blank lines. A paragraph that occurs twice is kept once.
    Lines are in the order of a digest, so that the first of them are a sample of all sources, of
    which none has more than `MOST` paragraphs in `texts.jsonl`.
    """
    seen: set[str] = set()
    documents: dict[tuple[str, str], list[str]] = {}
    for package in PACKAGES:
        for name, raw in _READERS[package.name](trees[package.name]):
            text = " ".join(raw.split())
            key = re.sub(r"\W+", "", text.casefold())
            if _is_prose(text) and key not in seen:
                seen.add(key)
                documents.setdefault((package.name, name), []).append(text)
    left = {package.name: MOST for package in PACKAGES}
    paragraphs = []
    pairs = ((place, text) for place, texts in documents.items() for text in texts)
    for (source, name), text in sorted(pairs, key=lambda pair: _digest(pair[1])):
        if left[source]:
            left[source] -= 1
            paragraphs.append(_row(source, name, text))
    _write_lines(folder / "texts.jsonl", paragraphs)
    wholes = [_row(*place, "\n\n".join(texts)) for place, texts in documents.items()]
    wholes.sort(key=lambda row: _digest(row["document"]))
    _write_lines(folder / "documents.jsonl", wholes)


def _row(source: str, name: str, text: str) -> dict[str, str]:
    return {"text": text, "source": source, "document": f"{source}/{name}"}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _is_prose(text: str) -> bool:
    letters = sum(c.isalpha() or c in " ,.'" for c in text)
    return len(text.split()) >= LEAST_WORDS and letters >= LEAST_LETTERS * len(text)


# -- readers: (document, paragraph) ----------------------------------------------------------------


class _Paragraphs(HTMLParser):
    """The texts of `<p>` and `<div class="para">`; what is set as code is passed over."""

    _LISTS = ("ul", "ol", "li", "dl", "dt", "dd", "table", "tr", "td")
    _BLOCKS = frozenset(("body", "div", "p", "blockquote", "h1", "h2", "h3", "h4", "hr", *_LISTS))
    _CODE = frozenset(("pre", "script", "style"))

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._text: list[str] | None = None
        self._code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._CODE:
            self._code += 1
        if tag in self._BLOCKS or tag in self._CODE:
            self._end()
        kind = dict(attrs).get("class")
        if (tag == "p" and kind is None) or (tag == "div" and kind == "para"):
            self._text = []

    def handle_endtag(self, tag: str) -> None:
        if tag in self._CODE:
            self._code -= 1
        if tag in self._BLOCKS:
            self._end()

    def handle_data(self, data: str) -> None:
        if self._text is not None and not self._code:
            self._text.append(data)

    def _end(self) -> None:
        if self._text is not None:
            self.found.append("".join(self._text))
        self._text = None


def _html(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.glob("*.html")):
        parser = _Paragraphs()
        parser.feed(file.read_text(encoding="utf-8", errors="replace"))
        for text in parser.found:
            yield file.stem, text


def _handbook(tree: Path) -> Iterator[tuple[str, str]]:
    yield from _html(tree / "usr/share/doc/debian-handbook/html/en-US")


def _anarchism(tree: Path) -> Iterator[tuple[str, str]]:
    yield from _html(tree / "usr/share/doc/anarchism/html")


def _entries(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """The entries of a dictionary in dictd's format, by its index (numbers in base 64)."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(text: str) -> int:
        value = 0
        for digit in text:
            value = value * 64 + digits.index(digit)
        return value

    whole = gzip.decompress((folder / f"{name}.dict.dz").read_bytes())
    places: dict[tuple[int, int], str] = {}
    for line in (folder / f"{name}.index").read_text(encoding="utf-8").splitlines():
        word, start, length = line.split("\t")
        if not word.startswith("00"):
            places.setdefault((number(start), number(length)), word)
    for (start, length), word in sorted(places.items()):
        _, _, body = whole[start : start + length].decode(errors="replace").partition("\n")
        for paragraph in re.split(r"\n\s*\n", textwrap.dedent(body)):
            text = re.sub(r"^\s*<[^>]*>\s*", "", paragraph)  # the field of a term
            text = re.sub(r"\{([^{}]*?)\s*(\([^{}]*\))?\}", r"\1", text)  # a reference
            if not re.match(r"\s*(\[|\(\d{4}-\d\d-\d\d\))", text):  # a source, a date
                yield word, text


def _foldoc(tree: Path) -> Iterator[tuple[str, str]]:
    yield from _entries(tree / "usr/share/dictd", "foldoc")


def _jargon(tree: Path) -> Iterator[tuple[str, str]]:
    yield from _entries(tree / "usr/share/dictd", "jargon")


def _fortunes(tree: Path) -> Iterator[tuple[str, str]]:
    for file in sorted((tree / "usr/share/games/fortunes").iterdir()):
        if file.suffix in (".dat", ".u8") or not file.is_file() or file.name in _LEFT_OUT:
            continue
        whole = file.read_text(encoding="utf-8", errors="replace")
        for index, text in enumerate(whole.split("\n%\n")):
            yield f"{file.name}:{index}", re.sub(r"\n\s*-- .*", "", text, flags=re.DOTALL)


_READERS = {
    "debian-handbook": _handbook,
    "anarchism": _anarchism,
    "dict-foldoc": _foldoc,
    "dict-jargon": _jargon,
    "fortunes": _fortunes,
}
