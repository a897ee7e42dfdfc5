"""No test reaches a model hub, and every test starts from the same random state."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
# The models are tiny: threads would wait for each other, above all where cores are shared.
# Processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

pytest_plugins = ["booted", "gaussian_pairs", "hostile_files", "slow_tests"]

# The same examples every time, and none fails because the machine is slow.
settings.register_profile(
    "seeded", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("seeded")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
