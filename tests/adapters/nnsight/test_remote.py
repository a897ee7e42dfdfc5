"""The `nnsight` adapter away: what is sent, what comes back, and what a server cannot do.

No server can be reached from a test: what `remote=True` does is seen by recording what nnsight's
`trace` is called with, and by its dry run (`remote="local"`), which sends and rebuilds the trace.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from capture_helpers import Mean, streamed
from nnsight import NNsight
from nnsight_models import BLOCKS, ROWS, TEXTS, expected_of
from tiny_models import WIDTH
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.adapters.base import Batch
from polycode_plugins.adapters.nnsight.adapter import NNsightAdapter


def test_the_dry_run_of_a_server_gives_the_same(folder):
    sites = [BLOCKS[0], "model.transformer.h.1.mlp", BLOCKS[2]]
    here = streamed(pc.load(str(folder), "nnsight"), TEXTS, sites, context=8)
    adapter = pc.load(str(folder), "nnsight", remote="local")
    away = streamed(adapter, TEXTS, sites, context=8)
    assert list(away) == list(here) == sites
    for name, values in here.items():
        assert torch.equal(away[name], values.double())
    assert adapter.describe()["remote"] == "local"


class Served(NNsight):
    """A model that nnsight could send to a server, which here runs what it is sent at once."""

    def to_model_key(self) -> str:
        return "here"

    def trace(self, *args: Any, remote: Any = False, **kwargs: Any) -> Any:
        self.asked.append(remote)
        return super().trace(*args, **kwargs)

    def scan(self, *args: Any, **kwargs: Any) -> Any:
        return super().trace(*args, **kwargs)


def served(model: nn.Module) -> Any:
    wrapped = Served(model)
    object.__setattr__(wrapped, "asked", [])
    return wrapped


@pytest.mark.parametrize("remote", [True, "local", "https://ndif.example.org"])
def test_remote_is_passed_on_and_the_cache_read_by_visits(plain, remote):
    model = served(plain)
    adapter = NNsightAdapter(model, remote=remote)
    last: list[int] = []
    handle = plain.last.register_forward_hook(lambda *_: last.append(1))
    sites = ["model.relu:0", "model.pair", "model.relu:1"]
    got = streamed(adapter, ROWS, sites, batch_size=4)
    handle.remove()
    assert [asked for asked in model.asked if asked] == [remote] * 3
    expected = expected_of(plain)
    if remote == "local":  # the only one that runs where operations in place can be seen
        assert all(torch.equal(got[name], expected[name].double()) for name in sites)
    assert list(got) == sites
    early = NNsightAdapter(served(plain), remote=remote)
    handle = plain.last.register_forward_hook(lambda *_: last.append(1))
    count = len(last)
    streamed(early, ROWS, ["model.first", "model.again", "model.pair"], batch_size=4)
    handle.remove()
    assert len(last) == count + 1  # of the trace: three batches stopped before it


def test_remote_traces_that_lack_a_site_are_errors(plain):
    adapter = NNsightAdapter(served(plain), remote=True)
    batch = Batch(ROWS, rows=torch.arange(11))
    plain.eval()
    for name in ("model.unused", "model.relu:2"):
        sites = [pc.Site("model.first"), pc.Site(name, 1)]
        with pytest.raises(pc.SiteError, match="did not fire"):
            adapter.run(batch, sites, lambda *_: None)
    with pytest.raises(pc.SiteError, match="called more than once"):
        adapter.run(batch, [pc.Site("model.relu")], lambda *_: None)


def test_what_a_server_cannot_do_is_refused(plain, folder):
    with pytest.raises(pc.ModelError, match="exists in this process only"):
        NNsightAdapter(NNsight(plain), remote=True)
    away = served(plain)
    with (
        pytest.raises(pc.ModelError, match="no hook can be attached"),
        pc.attach(away, "model.first", Mean(), remote=True),
    ):
        pass
    with pytest.raises(pc.ModelError, match="evaluation mode"):
        pc.analyze(served(plain.train()), ROWS, Mean(), "model.first", train_mode=True, remote=True)
    # A model that runs elsewhere is not loaded here, and its sites are known all the same.
    adapter = pc.load(str(folder), "nnsight", remote=True)
    assert not adapter.envoy.dispatched
    assert all(p.is_meta for p in adapter.model.parameters())
    sites = adapter.resolve(BLOCKS, adapter.example())
    assert [(s.name, s.width) for s in sites] == [(b, WIDTH) for b in BLOCKS]
    with pytest.raises(pc.ModelError, match="the remote run failed"):
        pc.analyze(adapter, TEXTS, Mean(), BLOCKS, context=8)


def test_sites_of_a_model_that_needs_values_are_in_the_order_of_definition():
    class Needy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b, self.a = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) if float(x.sum()) > 0 else x

    with torch.device("meta"):
        needy = Needy()
    adapter = NNsightAdapter(served(needy), remote=True)
    with pytest.warns(UserWarning, match="order of definition"):
        sites = adapter.sites(Batch(ROWS.to("meta"), rows=torch.arange(11)))
    assert [s.name for s in sites] == ["model.b", "model.a"]
