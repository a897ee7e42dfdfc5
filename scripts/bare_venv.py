"""A virtual environment with the core dependencies of a wheel and nothing else, in seconds.

What the wheel requires without extras, and what that requires in turn, is linked from the
environment that runs this script; the wheels are installed by the pip of that environment, which
then checks that nothing is missing. So what only an extra brings is truly absent, and neither a
second torch is downloaded nor a second pip unpacked.

    python scripts/bare_venv.py FOLDER WHEEL [WHEEL ...]
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath

import pip
from packaging.requirements import Requirement


def make(folder: Path, *wheels: Path) -> Path:
    """Make the environment; returns its Python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    named = {_name(wheel.name.split("-")[0]) for wheel in wheels}
    for found in _closure([r for wheel in wheels for r in _requires(wheel)], named):
        _link(found, site)
    # What `pip --python` starts, without a second interpreter that starts it. What is imported is
    # compiled then.
    runner = Path(pip.__file__).parent / "__pip-runner__.py"
    called: list[str | Path] = [python, runner, "--disable-pip-version-check"]
    install = [*called, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", *wheels]
    for command in (install, [*called, "check"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return python


def _requires(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []


def _closure(texts: list[str], made: set[str]) -> list[Distribution]:
    """What the requirements need in this environment; extras that they ask for included."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(text, "") for text in texts]
    while waiting:
        text, extra = waiting.pop()
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        name = _name(wanted.name)
        if name in made:
            continue
        installed = found.setdefault(name, distribution(name))
        for inner in {"", *wanted.extras} - {e for n, e in seen if n == name}:
            seen.add((name, inner))
            waiting += [(text, inner) for text in installed.requires or []]
    return list(found.values())


def _link(found: Distribution, site: Path) -> None:
    """Links to the files of a distribution; a folder that only it uses is one link."""
    home = Path(str(found.locate_file("")))
    for file in found.files or []:
        top = PurePosixPath(file).parts[0]
        if top in ("..", "__pycache__") or top.endswith(".pth"):
            continue
        target = home / top
        if target.is_dir() and not (target / "__init__.py").exists() and "." not in top:
            target, link = home / file, site / file  # a namespace that several share
            link.parent.mkdir(parents=True, exist_ok=True)
        else:
            link = site / top
        if not link.is_symlink() and not link.exists():
            link.symlink_to(target)


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    print(make(Path(sys.argv[1]), *map(Path, sys.argv[2:])))
