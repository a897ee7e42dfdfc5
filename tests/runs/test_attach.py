"""`attach` outside a `with` statement, and `measure` given what it does not take."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins.testing.watching import hooks_on


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 24), nn.Tanh())


DATA = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
SPECTRUM = pc.metrics.Spectrum(fit="huber", ranks=(1, None))


@pytest.mark.parametrize("attribute", ["compute", "n_samples", "results"])
def test_a_probe_that_was_not_opened_says_how(attribute):
    model = network()
    probe = pc.attach(model, "1", SPECTRUM)
    model(DATA)
    with pytest.raises(pc.PolycodeError, match=rf"{attribute}.*use it in a with statement"):
        getattr(probe, attribute)
    assert hooks_on(model) == 0


def test_what_python_asks_of_every_object_has_its_usual_answer():
    probe = pc.attach(network(), "1", SPECTRUM)
    assert not hasattr(probe, "_repr_html_")
    assert "Attachment" in repr(probe)
    assert copy.copy(probe) is not probe


def test_opened_it_gives_the_probe_and_leaves_the_errors_of_others_alone():
    model = network()
    with pytest.raises(RuntimeError, match="shapes"), pc.attach(model, "1", SPECTRUM) as probe:
        (model(DATA), model(DATA[:, :5]))
    assert hooks_on(model) == 0
    assert probe.n_samples == {"1": 200}
    with contextlib.ExitStack() as stack:
        probe = stack.enter_context(pc.attach(model, "1", SPECTRUM))
        model(DATA)
        assert probe.compute()["1", "spectrum"].n_samples == 200
    assert hooks_on(model) == 0
    with pytest.raises(pc.SiteError, match="'9'"), pc.attach(model, "9", SPECTRUM):
        pass


@pytest.mark.parametrize("given", [DATA, DATA.numpy(), [[1.0, 2.0], [3.0, 4.0]], 5])
def test_one_tensor_is_measured_by_a_metric(given):
    with pytest.raises(pc.DataError, match=r"mapping of site .*pc\.metrics\.Spectrum\(\)\.measure"):
        pc.measure(given)


@pytest.mark.parametrize("given", [{}, []])
def test_an_empty_mapping_holds_nothing_to_measure(given):
    with pytest.raises(pc.DataError, match="nothing to measure"):
        pc.measure(given)


def test_measure_chooses_sites_by_name_and_glob():
    layers = {f"blocks.{i}.hook_resid_post": torch.randn(200, 30) for i in range(3)}
    weights = {"blocks.0.attn.hook_pattern": torch.rand(2, 4, 8, 8)}
    chosen = pc.measure(layers | weights, ["spectrum"], "**.hook_resid_post")
    assert list(chosen) == list(layers)
    assert list(pc.measure(layers, ["spectrum"], ["blocks.2.*", "blocks.0.*"])) == [
        "blocks.0.hook_resid_post",
        "blocks.2.hook_resid_post",
    ]
    with pytest.warns(
        UserWarning, match=r"left out, 1 of them: blocks.0.attn.hook_pattern .*sites="
    ):
        assert list(pc.measure(layers | weights, ["spectrum"])) == list(layers)
    with pytest.raises(pc.DataError, match=r"attention weights.*sites="):
        pc.measure(layers | weights, ["spectrum"], "**")
    with pytest.raises(pc.DataError, match=r"attention weights.*sites="):
        pc.measure(weights, ["spectrum"])
    with pytest.raises(pc.SiteError, match=r"'\*\.hook_resid_pre'"):
        pc.measure(layers, ["spectrum"], "*.hook_resid_pre")
