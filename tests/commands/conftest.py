"""A text of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

TEXT = "def area(radius):\n    Return the area of a circle of the given radius.\n" * 60


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path
