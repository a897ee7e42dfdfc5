"""No test reaches a model hub, and every test starts from the same random state."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
# The models are tiny: threads would wait for each other, above all where cores are shared.
# Processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

# What is imported and collected stays: it is no garbage, and need not be looked through for some.
gc.disable()

pytest_plugins = ["slow_tests"]
_FIXTURES = ("booted", "gaussian_pairs", "hostile_files")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which environments of other packages lack
def pytest_xdist_auto_num_workers() -> int:
    """One more than processors: tests also wait for a browser, for servers, for other programs."""
    try:
        return len(os.sched_getaffinity(0)) + 1
    except AttributeError:  # on macOS
        return (os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return  # it hands the tests to its workers, which wait for it: it needs no torch
    import early
    import torch
    from hypothesis import HealthCheck, settings

    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # or every step of an optimizer looks for one
    # Autograd counts devices once. Did it find one that a test says is there, by fake tensors or by
    # simulated ones, no fork of the process could train.
    torch.ones((), requires_grad=True).backward()  # type: ignore[no-untyped-call]
    # The same examples every time, and none fails because the machine is slow.
    settings.register_profile(
        "seeded", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("seeded")
    # Whether a test begins processes must not depend on load: those that are of them say so.
    from polycode_plugins.metrics import processes

    processes.PATIENCE = float("inf")
    early.begin()  # before this process takes in what it tests
    config.add_cleanup(early.end)
    for name in _FIXTURES:
        config.pluginmanager.import_plugin(name)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)  # 700 times a test's few objects are looked through else
        gc.enable()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    from polycode_plugins.adapters.undisturbed import seed_torch

    # Not `torch.manual_seed`, which keeps the whole stack for a CUDA that is initialised later.
    seed_torch(0)
