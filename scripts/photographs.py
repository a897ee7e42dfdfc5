"""Photographs out of scikit-image, scikit-learn and Debian packages, in a folder of JPEG files."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from debian_texts import Package
from PIL import Image

SIZE = 512  # of the shorter side, at most
SAME = 0.97  # correlation of two pictures from which on the second is taken for a copy
_THUMBNAIL = 24

PACKAGES = (
    Package(
        "gcompris-qt-data",
        "3.1-2",
        "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
        "GPL-3+ as a whole, each picture by its own line of the copyright file",
    ),
    Package(
        "lomiri-wallpapers-16.04",
        "20.04.0-2",
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        "CC-BY-4.0 and CC-BY-SA-4.0",
    ),
    Package(
        "mate-backgrounds",
        "1.26.0-1",
        "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
        "GPL-2+ and CC-BY-SA-4.0",
    ),
)
# Of GCompris' activities those whose pictures are photographs.
_ACTIVITIES = (
    "categorization",
    "erase",
    "explore_farm_animals",
    "explore_monuments",
    "explore_world_animals",
    "explore_world_music",
)
_NO_PHOTOGRAPHS = ("umang", "analogpattern", "Wood")
_COLOUR = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")


def describe() -> str:
    """One line: the packages and their licences."""
    listed = ", ".join(f"{p.name} ({p.licence})" for p in PACKAGES)
    return f"photographs of scikit-image and scikit-learn (see their README.txt), {listed}"


def write(trees: dict[str, Path], folder: Path) -> None:
    """Write the photographs into `folder` and one line on each into `photographs.jsonl`.

    The shorter side is at most `SIZE` pixels. A picture that was written before, from another
    package or in another size, is left out.
    """
    seen: list[np.ndarray] = []
    with (folder / "photographs.jsonl").open("w", encoding="utf-8") as lines:
        for source, name, stored in _pictures(trees):
            image = Image.open(io.BytesIO(stored))
            if image.mode in ("RGBA", "LA", "P"):
                continue  # cut out, or drawn
            image = image.convert("RGB")
            small = np.asarray(image.convert("L").resize((_THUMBNAIL, _THUMBNAIL)), np.float64)
            small = (small - small.mean()) / (np.linalg.norm(small - small.mean()) or 1.0)
            if min(image.size) < 200 or any((small * other).sum() > SAME for other in seen):
                continue
            seen.append(small)
            shrink = min(1.0, SIZE / min(image.size))
            size = tuple(round(n * shrink) for n in image.size)
            file = f"{source}_{Path(name).stem}.jpg".replace(" ", "_")
            image.resize(size, Image.Resampling.LANCZOS).save(folder / file, quality=95)
            lines.write(json.dumps({"file": file, "source": source, "name": name}) + "\n")


def _pictures(trees: dict[str, Path]) -> Iterator[tuple[str, str, bytes]]:
    """(source, name, encoded picture), in an order that is always the same."""
    import skimage
    import sklearn.datasets

    for name in _COLOUR:
        yield "scikit-image", name, (Path(skimage.__file__).parent / "data" / name).read_bytes()
    for name in ("china.jpg", "flower.jpg"):
        photograph = Path(sklearn.datasets.__file__).parent / "images" / name
        yield "scikit-learn", name, photograph.read_bytes()
    for file in sorted((trees["lomiri-wallpapers-16.04"] / "usr/share/backgrounds").glob("*.jpg")):
        if not file.name.startswith(_NO_PHOTOGRAPHS):
            yield "lomiri-wallpapers", file.name, file.read_bytes()
    nature = trees["mate-backgrounds"] / "usr/share/backgrounds/mate/nature"
    for file in sorted(nature.glob("*.jpg")):
        if not file.name.startswith(_NO_PHOTOGRAPHS):
            yield "mate-backgrounds", file.name, file.read_bytes()
    compiled = trees["gcompris-qt-data"] / "usr/share/gcompris-qt/rcc"
    for activity in _ACTIVITIES:
        for name, stored in _resources((compiled / f"{activity}.rcc").read_bytes()):
            if stored[:3] == b"\xff\xd8\xff" or stored[8:12] == b"WEBP":
                yield "gcompris", f"{activity}_{name}", stored


def _resources(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a resource file of Qt (format versions 1 to 3)."""
    magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
    if magic != b"qres":
        raise OSError("this is no resource file of Qt")
    size = 14 if version == 1 else 22
    waiting = [0]
    while waiting:
        at = tree + size * waiting.pop()
        name_at, flags = struct.unpack_from(">IH", data, at)
        if flags & 2:  # a folder: how many entries it has, and the first of them
            count, first = struct.unpack_from(">II", data, at + 6)
            waiting += range(first + count - 1, first - 1, -1)
            continue
        (start,) = struct.unpack_from(">I", data, at + 10)
        (length,) = struct.unpack_from(">I", data, contents + start)
        stored = data[contents + start + 4 : contents + start + 4 + length]
        (letters,) = struct.unpack_from(">H", data, names + name_at)
        name = data[names + name_at + 6 : names + name_at + 6 + 2 * letters].decode("utf-16-be")
        if flags & 1:  # packed by zlib, behind the length of what was packed
            stored = zlib.decompress(stored[4:])
        if not flags & 4:  # pictures are packed already, by no other method
            yield name, stored
