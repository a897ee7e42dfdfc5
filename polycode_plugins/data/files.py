"""The files of a folder, in an order that is the same on every machine."""

from __future__ import annotations

from pathlib import Path

from polycode_plugins.errors import DataError


def files_in(folder: Path, suffixes: tuple[str, ...], kind: str) -> list[Path]:
    """Paths relative to `folder` of its files with one of `suffixes`, at any depth.

    Hidden files and folders are left out. Paths are compared part by part and never by the
    system's locale. Raises `DataError` where there are none; `kind` says of what.
    """
    files = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    wanted = [file for file in files if file.suffix.lower() in suffixes]
    if not wanted:
        seen = ", ".join(sorted({file.suffix or "no suffix" for file in files})[:6]) or "no files"
        raise DataError(
            f"the folder {folder} has no {kind} ({', '.join(suffixes)}; found: {seen}); "
            f"name another folder, or a model that reads what is in it"
        )
    return wanted
