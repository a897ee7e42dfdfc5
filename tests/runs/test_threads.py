"""Several threads, several runs and one model: no run reads what another's passes show."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.adapters.hooks import own_pass
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.testing.watching import hooks_on

DATA = torch.randn(160, 6, generator=torch.Generator().manual_seed(0))
SPECTRUM = pc.metrics.Spectrum(fit="huber", ranks=(1, None))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 24), nn.Dropout(0.5), nn.Tanh())


def in_thread(work: Callable[[], Any]) -> None:
    """Do it in a thread of its own, to its end; raise what it raises."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    for error in failed:
        raise error


class Meeting(nn.Module):
    """Tells when its first pass is under way, and waits there until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go_on = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 50 and not self.inside.is_set():
            self.inside.set()
            assert self.go_on.wait(60)
        return x


def test_runs_of_one_model_in_two_threads_take_turns():
    model = network().train()
    alone = {k: pc.analyze(model, DATA + k, SPECTRUM, "2", batch_size=8) for k in (0, 1)}
    found: dict[int, pc.Analysis] = {}
    started = threading.Barrier(2)

    def rows(k: int) -> Iterable[Tensor]:
        for index, batch in enumerate((DATA + k).split(8)):
            if index == 3 and k == 0:  # the other thread begins, and waits
                other.start()
                started.wait(60)
            yield batch

    def second() -> None:
        started.wait(60)
        found[1] = pc.analyze(model, DATA + 1, SPECTRUM, "2", batch_size=8)

    other = threading.Thread(target=second)
    found[0] = pc.analyze(model, rows(0), SPECTRUM, "2")
    other.join(60)
    for k, analysis in found.items():
        assert analysis["2", "spectrum"].exponent == alone[k]["2", "spectrum"].exponent
        assert analysis["2", "spectrum"].n_samples == 160
    assert all(module.training for module in model.modules())
    assert hooks_on(model) == 0


def test_what_a_thread_does_with_a_model_is_not_counted_in_a_run_of_another():
    class Busy(nn.Module):
        """Somebody else's thread runs the whole model while ours is in it."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 24), nn.Tanh()
            self.beside = 0

        def forward(self, x: Tensor) -> Tensor:
            values = self.first(x)
            if len(x) == 32 and x.requires_grad is False:
                self.beside += 1
                in_thread(lambda: self(100 * torch.randn(7, 6)))
            return self.last(values)

    model = Busy()
    run = pc.analyze(model, DATA, SPECTRUM, ["first", "last"], batch_size=32)
    assert model.beside >= 5
    assert run["first", "spectrum"].n_samples == run["last", "spectrum"].n_samples == 160
    plain = nn.Sequential(model.first, model.last)
    expected = pc.analyze(plain, DATA, SPECTRUM, ["0", "1"], batch_size=32)
    for site, other in (("first", "0"), ("last", "1")):
        assert run[site, "spectrum"].exponent == expected[other, "spectrum"].exponent


def lens() -> nn.Module:
    return pc.load(None).model


TOKENS = torch.randint(300, 900, (30, 8), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("make", "data", "site", "samples"),
    [(network, DATA, "2", 160), (lens, TOKENS, "blocks.1.hook_resid_post", 240)],
)
def test_a_probe_counts_no_passes_of_runs(make, data, site, samples):
    model = make().eval()
    before = hooks_on(model)
    with pc.attach(model, site, SPECTRUM) as outer, torch.no_grad():
        model(data)
        run = pc.analyze(model, data + 0, SPECTRUM, site, batch_size=16)
        with pc.attach(model, site, SPECTRUM) as inner:
            model(data)
    assert outer.n_samples == {site: 2 * samples}
    assert inner.n_samples == {site: samples}
    assert run[site, "spectrum"].n_samples == samples
    assert hooks_on(model) == before


def test_a_probe_inside_of_undisturbed_counts_the_passes_there():
    model = network()
    with undisturbed(model), pc.attach(model, "2", SPECTRUM) as probe:
        model(DATA)
    assert probe.n_samples == {"2": 160}


@pytest.mark.parametrize(
    ("make", "data", "site"),
    [(network, DATA, "2"), (lens, TOKENS, "blocks.1.hook_resid_post")],
)
def test_passes_of_several_threads_one_after_the_other_are_counted(make, data, site):
    model = make().eval()
    with pc.attach(model, site, SPECTRUM) as probe, torch.no_grad():
        for part in data.split(10):
            in_thread(lambda part=part: model(part))
    with pc.attach(model, site, SPECTRUM) as alone, torch.no_grad():
        for part in data.split(10):
            model(part)
    assert probe.n_samples == alone.n_samples
    found, expected = (p.compute()[site, "spectrum"].exponent for p in (probe, alone))
    assert found == expected


def test_passes_of_two_threads_at_once_are_refused_with_what_to_do():
    meeting = Meeting()
    model = nn.Sequential(network(), meeting, nn.Linear(24, 24)).eval()
    with pc.attach(model, ["0.2", "2"], SPECTRUM) as probe, torch.no_grad():
        model(DATA[:20])
        waits = threading.Thread(target=lambda: model(DATA[:50]))
        waits.start()
        assert meeting.inside.wait(60)
        model(DATA[:20])
        meeting.go_on.set()
        waits.join(60)
    with pytest.raises(pc.SiteError, match=r"two threads run the model at once.*a copy of the"):
        probe.compute()


def test_a_pass_that_raised_does_not_stand_in_the_way_of_another_thread():
    model = network().eval()
    with pc.attach(model, "2", SPECTRUM) as probe:
        with pytest.raises(RuntimeError, match="shapes"):
            model(DATA[:, :5])
        in_thread(lambda: model(DATA))
    assert probe.n_samples == {"2": 160}
    assert probe.compute()["2", "spectrum"].n_samples == 160


def test_own_passes_end_with_an_error_too():
    model = network()
    with pytest.raises(ValueError, match="mine"), own_pass():
        raise ValueError("mine")
    with pc.attach(model, "2", SPECTRUM) as probe:
        model(DATA)
    assert probe.n_samples == {"2": 160}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_a_fork_made_while_another_thread_runs_a_model_has_its_turn():
    model = network()
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with undisturbed(model):
            inside.set()
            assert go_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    child = os.fork()
    if not child:
        import signal

        signal.alarm(30)  # which ends what hangs
        status = 1
        try:
            with undisturbed(model):
                status = 0
        finally:
            os._exit(status)
    go_on.set()
    thread.join(60)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
