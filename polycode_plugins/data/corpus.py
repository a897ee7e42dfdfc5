"""The embedded text: docstrings of Python's standard library, read from the running Python.

Nothing is shipped and nothing is downloaded: the sources that every Python carries are parsed,
never imported. A whole module is either trained on or held out, so the embedded model has seen no
docstring of a validation module.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

from polycode_plugins.errors import DataError

Split = Literal["train", "validation"]

# Installed packages and test suites are not the standard library's own prose, and distributions
# differ in whether they ship the latter.
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_HELD_OUT = 0.1


def docstrings(split: Split | None = None) -> Iterator[tuple[str, str]]:
    """Yield `(origin, docstring)` for every distinct docstring, e.g. `("json/decoder.py:12", ...)`.

    Modules come in a fixed order that is unrelated to their names (that of the SHA-256 of their
    path), so that the first N documents are a sample of the library rather than its letter A. A
    docstring that stands in several modules is yielded once, for the first of them, before the
    split is applied: no text is in both splits.

    Raises `DataError` where the running Python ships no sources.
    """
    seen: set[bytes] = set()
    root = _stdlib()
    for name, path in _modules(root):
        wanted = split is None or _split_of(name) == split
        for line, text in _docstrings_of(path):
            key = hashlib.sha256(text.encode()).digest()
            if key in seen:
                continue
            seen.add(key)
            if wanted:
                yield f"{name}:{line}", text


def _stdlib() -> Path:
    root = Path(sysconfig.get_paths()["stdlib"])
    if not (root / "ast.py").is_file():
        raise DataError(
            f"the embedded text cannot be read because this Python has no standard-library sources "
            f"in {root}; name a text file, a folder or a data set instead"
        )
    return root


def _modules(root: Path) -> list[tuple[str, Path]]:
    """`(path relative to the library, file)` of every module, by the digest of the path."""
    found = []
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if name not in _SKIPPED]  # not entered: may be huge
        paths = (Path(folder, name) for name in files if name.endswith(".py"))
        found += [(path.relative_to(root).as_posix(), path) for path in paths]
    return sorted(found, key=lambda item: _digest(item[0]))


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _split_of(name: str) -> Split:
    # Other bytes than those that order the modules, so that neither split comes first.
    share = int.from_bytes(_digest(name)[-8:], "big") / 2**64
    return "validation" if share < _HELD_OUT else "train"


@cache  # parsing takes seconds, the docstrings two megabytes
def _docstrings_of(path: Path) -> tuple[tuple[int, str], ...]:
    """`(line, cleaned text)` of the module's, classes' and functions' docstrings, in file order."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in strings; not ours to mend
            tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return ()  # a template for another version of Python
    found = []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = (ast.get_docstring(node) or "").strip()
            if text:
                found.append((getattr(node, "lineno", 1), text))
        # Definitions stand only in statements; skipping expressions makes the walk several times
        # faster than ast.walk.
        pending.extend(
            child
            for child in reversed(list(ast.iter_child_nodes(node)))
            if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case)
        )
    return tuple(found)
