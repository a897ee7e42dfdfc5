"""Analyses to report on: planted power laws, and one whose every name is an attack."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import FLAGS
from report_samples import BROKEN, FEW, HOSTILE, Spread, planted

import polycode_plugins as pc


@pytest.fixture(scope="session")
def analysis() -> pc.Analysis:
    """Twelve sites with exponents 0.6, 0.65 and so on; one broken, one with few samples."""
    return pc.measure(
        {
            f"blocks.{i}.hook_resid_post": planted(
                0.6 + 0.05 * i,
                samples=90 if i == FEW else 1200,
                seed=i,
                breaks=i == BROKEN,
            )
            for i in range(12)
        },
        ["spectrum"],
    )


@pytest.fixture(scope="session")
def hostile() -> pc.Analysis:
    """An analysis in which whatever can hold text holds an attack; two metrics."""
    activations = {
        name: planted(1.0, samples=600, width=60 + i, seed=i) for i, name in enumerate(HOSTILE)
    }
    made = pc.measure(activations, ["spectrum", Spread(label="spread </h2><img src=x>")])
    made.run |= {
        "model": {"name": "<img src=x onerror=alert(1)>", "type": "</title><script>alert(1)"},
        "data": "<svg onload=alert(1)>",
        "command": "polycode analyze '</pre><script>alert(1)</script>' \udcff",
        "options": {"<i>option</i>": "</script><!--"},
        "created": "<u>today</u>",
    }
    return made


@pytest.fixture(scope="session")
def report(analysis: pc.Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return analysis.report(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="session")
def hostile_report(hostile: pc.Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.report(tmp_path_factory.mktemp("hostile") / "report.html")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium of the system: without it tests are skipped, but fail where CI is set."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("CI must install Chromium (apt-get install chromium)")
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        # Playwright gives every launch a fresh profile of its own.
        launched = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield launched
        launched.close()
