"""Statistics are as precise as they say, whatever precision the process is set to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polycode_plugins.activations import Activations, Site
from polycode_plugins.metrics import Spectrum
from polycode_plugins.precision import full_precision
from polycode_plugins.runs.gathering import Statistics

BACKENDS = torch.backends


def products() -> list[str]:
    return [each.matmul.fp32_precision for each in (BACKENDS.cuda, BACKENDS.mkldnn)]


def _old(name: str) -> None:
    torch.set_float32_matmul_precision(name)


# Ways in which a training loop asks for fast products, and what is then in force.
FAST = {
    "high": lambda: _old("high"),
    "medium": lambda: _old("medium"),
    "allow_tf32": lambda: setattr(BACKENDS.cuda.matmul, "allow_tf32", True),
    "all of torch": lambda: setattr(BACKENDS, "fp32_precision", "tf32"),
    "all of torch, bfloat16": lambda: setattr(BACKENDS, "fp32_precision", "bf16"),
    "all of cuda": lambda: setattr(BACKENDS.cudnn, "fp32_precision", "tf32"),
    "cuda's products": lambda: setattr(BACKENDS.cuda.matmul, "fp32_precision", "tf32"),
    "the cpu's products": lambda: setattr(BACKENDS.mkldnn.matmul, "fp32_precision", "bf16"),
    "old and new": lambda: (
        _old("high"),
        setattr(BACKENDS.mkldnn.matmul, "fp32_precision", "bf16"),
    ),
}
new = pytest.mark.skipif(
    not hasattr(BACKENDS, "fp32_precision"), reason="torch before 2.9 has one setting for all"
)


def settings() -> list[str]:
    """All settings in force, and what is left of them where those they inherit are taken away."""
    found = []
    for whole in (BACKENDS.fp32_precision, "none"):
        with BACKENDS.flags(fp32_precision=whole):
            libraries = BACKENDS, BACKENDS.cudnn, BACKENDS.mkldnn
            found += [each.fp32_precision for each in libraries]
            found += products()
            # The old ones refuse to be read where new ones contradict them.
            for read in (
                torch.get_float32_matmul_precision,
                lambda: BACKENDS.cuda.matmul.allow_tf32,
            ):
                try:
                    found.append(str(read()))
                except RuntimeError:
                    found.append("contradicted")
    return found


@pytest.fixture
def restored() -> Iterator[None]:
    yield
    BACKENDS.fp32_precision = "none"
    BACKENDS.cudnn.fp32_precision = "none"
    _old("highest")
    BACKENDS.cuda.matmul.fp32_precision = "none"
    BACKENDS.mkldnn.matmul.fp32_precision = "none"


def exact() -> bool:
    old = torch.get_float32_matmul_precision(), BACKENDS.cuda.matmul.allow_tf32
    return set(products()) <= {"ieee", "none"} and old == ("highest", False)


@new
@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("way", FAST)
def test_products_are_exact_inside_and_settings_as_found_afterwards(way):
    FAST[way]()
    before = settings()
    assert not set(products()) <= {"ieee", "none"}  # it is a fast way
    with full_precision():
        assert exact()
        with full_precision():
            assert exact()
        assert exact()
    assert settings() == before
    with pytest.raises(KeyError), full_precision():
        raise KeyError
    assert settings() == before
    if way.startswith("all of"):  # what was inherited still is
        BACKENDS.fp32_precision = BACKENDS.cudnn.fp32_precision = "none"
        assert products() == ["none", "none"]


@new
@pytest.mark.usefixtures("restored")
def test_one_thread_that_leaves_takes_nothing_from_another():
    FAST["high"]()
    before = settings()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with full_precision():
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(20)
    with full_precision():
        leave.set()
        thread.join()
        assert exact()
    assert settings() == before


@new
@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("way", FAST)
@pytest.mark.parametrize("threads", [1, 2])
def test_statistics_are_computed_inside(threads, way, monkeypatch):
    seen = []
    # On one thread the covariance's products are BLAS's own, which no setting of torch touches.
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: seen.append(exact()) or product(a, b)
    )
    values = torch.randn(6000, 12, generator=torch.Generator().manual_seed(0)) + 1000
    metric = Spectrum(precision="float32", ranks=(1, 12), fit="huber")
    expected = metric.measure(values).eigenvalues
    FAST[way]()
    found = metric.measure(values).eigenvalues
    hook = metric.as_hook()
    hook(values, hook=SimpleNamespace(name="site"))
    hooked = hook.compute()["site"].eigenvalues
    statistics = Statistics([metric], [Site("site")])
    statistics.receive("site", Activations(values, ("batch", "feature")))
    streamed = statistics.compute("site", metric).eigenvalues
    assert len(seen) >= (8 if threads == 1 else 12)
    assert all(seen)
    for eigenvalues in (found, hooked, streamed):
        assert np.array_equal(eigenvalues, expected)
