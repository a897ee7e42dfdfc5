"""`attach` on plain modules: somebody's training and ablations, unchanged and seen as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from capture_helpers import Mean, condition_of, hooks_on
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import polycode_plugins as pc
from polycode_plugins.adapters.evidence import reader

DATA = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
SITES = ["body.0", "body.1", "body.3", "head"]


class Network(nn.Module):
    def __init__(self, recompute: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.body = nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.BatchNorm1d(8)
        )
        self.head = nn.Linear(8, 3)
        self.recompute = recompute  # None: no checkpointing; else use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        if self.recompute is None:
            return self.head(self.body(x))
        return self.head(checkpoint(self.body, x, use_reentrant=self.recompute))


def trained(model: Network, attached: bool) -> tuple[dict[str, Tensor], pc.Probe | None]:
    """Weights and buffers after a few steps, with and without somebody looking on."""
    torch.manual_seed(6)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)

    def steps() -> None:
        for part in DATA.split(8):
            optimiser.zero_grad()
            model(part.clone().requires_grad_()).square().mean().backward()
            optimiser.step()

    probe = None
    if attached:
        with pc.attach(model, SITES, Mean()) as probe:
            steps()
    else:
        steps()
    return {k: v.clone() for k, v in model.state_dict().items()}, probe


@pytest.mark.parametrize("recompute", [None, True, False])
def test_training_is_bit_equal_with_and_without(recompute):
    alone, _ = trained(Network(recompute), attached=False)
    watched, probe = trained(Network(recompute), attached=True)
    assert alone.keys() == watched.keys()
    assert all(torch.equal(alone[k], watched[k]) for k in alone)
    assert alone["body.3.num_batches_tracked"] >= 5
    # What checkpointing computes twice is one sample, not two.
    assert probe.n_samples == dict.fromkeys(SITES, 40)


def test_a_whole_model_that_is_checkpointed_counts_once():
    model = Network()
    for reentrant in (True, False):
        with pc.attach(model, SITES, Mean()) as probe:
            x = DATA.clone().requires_grad_()
            checkpoint(model, x, use_reentrant=reentrant).sum().backward()
        assert probe.n_samples == dict.fromkeys(SITES, 40)


def test_gradients_flow_and_activations_hold_no_graph():
    model = Network().train()
    with pc.attach(model, SITES, Mean()) as probe:
        x = DATA.clone().requires_grad_()
        model(x).sum().backward()
        assert x.grad is not None
        tally = probe._statistics.accumulators("head", "mean")["tally"]
        assert not tally.total.requires_grad


def test_the_callers_modes_and_random_numbers_are_his():
    model = Network().train()
    model.body[3].eval()
    torch.manual_seed(9)
    with torch.no_grad():
        expected = model(DATA)
    before = condition_of(model)
    torch.manual_seed(9)
    with pc.attach(model, SITES, Mean()), torch.no_grad():
        assert torch.equal(model(DATA), expected)
        assert not torch.is_grad_enabled()
    after = condition_of(model)
    assert after == before


def interrupted(model: Network, error: type[BaseException]) -> None:
    model(DATA)
    raise error


def test_outputs_are_bit_equal_and_no_hook_stays():
    model = Network().eval()
    own = model.head.register_forward_hook(lambda *_: None)
    hooks = hooks_on(model)
    expected = model(DATA)
    with pc.attach(model, SITES, Mean()) as probe:
        assert torch.equal(model(DATA), expected)
        assert hooks_on(model) > hooks
    assert hooks_on(model) == hooks
    assert probe.compute()["head", "mean"].n_samples == 40
    model(DATA)
    assert probe.compute()["head", "mean"].n_samples == 40
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), pc.attach(model, SITES, Mean()):
            interrupted(model, error)
        assert hooks_on(model) == hooks
    own.remove()
    assert hooks_on(model) == 0


def halve(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    return output / 2


@pytest.mark.parametrize("when", ["before", "after", "between two passes"])
def test_what_is_seen_is_what_the_model_goes_on_with(when):
    model = Network().eval()
    whole = model.body(DATA).mean(dim=0).double().detach()
    if when == "before":
        model.body.register_forward_hook(halve)
    with pc.attach(model, "body", Mean()) as probe:
        if when == "between two passes":
            model(DATA)
        if when != "before":
            model.body.register_forward_hook(halve)
        out = model(DATA)
    assert torch.equal(out, model.head(model.body(DATA)))  # the ablation is in force in both
    expected = whole * (3 / 4 if when == "between two passes" else 1 / 2)
    assert torch.allclose(probe.compute()["body", "mean"].mean, expected, atol=1e-6)


def test_the_check_above_can_fail(monkeypatch):
    def naive(module: nn.Module, hook: Any, handles: list[Any], **_: Any) -> None:
        handles.append(module.register_forward_hook(lambda _m, _a, output: hook(output)))

    monkeypatch.setattr(reader, "observe", naive)
    with pytest.raises(AssertionError):
        test_what_is_seen_is_what_the_model_goes_on_with("after")


def test_somebody_who_clears_all_hooks_goes_on_and_the_site_is_silent():
    model = Network().eval()
    with pc.attach(model, ["body", "head"], Mean()) as probe:
        model.body._forward_hooks.clear()
        model(DATA)
    with pytest.raises(pc.SiteError, match="'body' did not fire"):
        probe.compute()


def test_a_part_that_is_called_alone_begins_a_pass_of_its_own():
    model = Network()
    with pc.attach(model, ["body", "body.0"], Mean()) as probe:
        model.body(DATA)
        model.body[0](DATA)
        model(DATA)
    assert probe.n_samples == {"body": 80, "body.0": 120}
    with pc.attach(model.body, "0", Mean()) as probe:
        model.body(DATA)
    assert probe.n_samples == {"0": 40}


def test_two_probes_at_once_see_the_same():
    model = Network().eval()
    with (
        pc.attach(model, "body", Mean()) as first,
        pc.attach(model, ["body", "head"], Mean()) as second,
    ):
        model(DATA)
    means = [p.compute()["body", "mean"].mean for p in (first, second)]
    assert torch.equal(*means)


def test_analyze_attach_and_measure_agree():
    model = Network().eval()
    analysed = pc.analyze(model, DATA, Mean(), SITES, batch_size=7)
    with pc.attach(model, SITES, Mean()) as probe, torch.no_grad():
        for part in DATA.split(7):
            model(part)
    with torch.no_grad():
        hidden = model.body[0](DATA)
        relu = hidden.relu()
        norm = model.body[3](relu)
        cache = {"body.0": hidden, "body.1": relu, "body.3": norm, "head": model.head(norm)}
    measured = pc.measure(cache, Mean())
    assert list(analysed) == list(probe.compute()) == list(measured) == SITES
    for site in SITES:
        means = [a[site, "mean"].mean for a in (analysed, probe.compute(), measured)]
        assert torch.allclose(means[0], means[1], rtol=0, atol=1e-7)
        assert torch.allclose(means[0], means[2], rtol=0, atol=1e-7)
        assert analysed[site, "mean"].n_samples == 40


@pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
def test_pytorchs_own_transformer_layers():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        expected = model(x)
        with pc.attach(model, "layers.*", Mean()) as probe:
            # Hooks switch PyTorch's fused path off: equal up to the order of additions.
            assert torch.allclose(model(x), expected, atol=1e-6)
            torch.backends.mha.set_fastpath_enabled(False)
            try:
                slow = model(x)
            finally:
                torch.backends.mha.set_fastpath_enabled(True)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            assert torch.equal(model(x), slow)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        assert probe.n_samples == {"layers.0": 30, "layers.1": 30}
        padding = torch.zeros(3, 5, dtype=torch.bool)
        padding[0, 3:] = True
        with pc.attach(model, "layers.0", Mean()) as probe:
            model(x, src_key_padding_mask=padding)
    with pytest.raises(pc.SiteError, match="a nested tensor"):
        probe.compute()
