"""Sites where a metric can have no result are refused at the first batch, with the way out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.metrics import Capacity, Spectrum

DATA = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
WIDE = "body.0.lin"


class Block(nn.Module):
    """16 features to 16, with a scale of one feature on the way, and 7 aside."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.aside, self.scale = nn.Linear(16, 16), nn.Linear(16, 7), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.tanh(self.lin(x)) + self.aside(x).sum(1, keepdim=True) + self.scale(x)
        return made


class Counted(nn.Module):
    """Counts its forward passes."""

    def __init__(self, blocks: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Sequential(nn.Linear(6, 16), nn.Tanh())
            self.body = nn.Sequential(*(Block() for _ in range(blocks)))
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        made: Tensor = self.body(self.first(x))
        return made


def refused(model: Counted, metrics: object, sites: object, **options: object) -> str:
    with pytest.raises(pc.DataError) as caught:
        pc.analyze(model, DATA, metrics, sites, batch_size=8, **options)
    return str(caught.value)


def test_a_narrow_site_ends_the_run_at_its_first_batch(tmp_path: Path):
    model = Counted()
    said = refused(model, ["spectrum"], "body.0.**", out=tmp_path / "run")
    assert model.passes == 2  # one of them to find the sites
    assert said == (
        "spectrum of site 'body.0.aside' can have no result: it has 7 features, and the fit needs "
        "5 eigenvalues from rank 11 on (ranks=(1, None) has them); leave it out, with "
        "'!**.aside' and '!**.scale' among the sites (and more at body.0.scale)"
    )
    assert not (tmp_path / "run").exists()


def test_what_it_says_is_the_way_out():
    spectrum = Spectrum(fit="huber")
    out = ["body.0.**", "!**.aside", "!**.scale"]
    assert WIDE in pc.analyze(Counted(), DATA, spectrum, out)
    wider = pc.analyze(Counted(), DATA, Spectrum(ranks=(1, None)), ["body.0.aside"])
    assert wider["body.0.aside", "spectrum"].width == 7
    said = refused(Counted(), Spectrum(ranks=(1, None)), "body.0.**")
    assert "has 1 feature, and the fit needs 5 eigenvalues from rank 1 on; leave it out" in said
    said = refused(Counted(), Spectrum(ranks=(1, None)), ["**.scale", "**.lin"])
    assert "leave it out, with '!**.scale' among the sites" in said


def test_of_many_sites_five_are_named():
    said = refused(Counted(8), spectrum := Spectrum(ranks=(1, None)), "body.**.scale")
    assert said.endswith(
        "leave it out, with '!**.scale' among the sites (and more at body.1.scale, body.2.scale, "
        "body.3.scale, body.4.scale, body.5.scale, 2 others)"
    )
    one = {"a.scale": DATA[:, :1], "b.scale": DATA}
    with pytest.raises(pc.DataError, match=r"out, with '!a\.scale' among the sites$"):
        pc.measure(one, spectrum)


def test_the_width_is_that_of_the_samples_asked_for():
    images = torch.randn(40, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = Spectrum(fit="huber", ranks=(1, None), positions="features")
    assert pc.measure({"a": images}, whole)["a", "spectrum"].width == 32
    with pytest.raises(pc.DataError, match="it has 2 features"):
        pc.measure({"a": images}, Spectrum(fit="huber", ranks=(1, None)))


def test_capacity_has_a_result_without_a_fit():
    result = pc.measure({"a": DATA[:, :2]}, Capacity())["a", "capacity"]
    assert result.power_law is None
    assert result.redundancy >= 0


def test_attached_it_ends_with_the_second_pass_or_when_it_is_read():
    model = Counted()
    with pc.attach(model, "body.0.**", ["spectrum"]) as probe:
        model(DATA)
        with pytest.raises(pc.DataError, match=r"'body\.0\.aside' can have no result"):
            probe.compute()
        model(DATA)  # nothing of ours is raised in his pass
        with pytest.raises(pc.DataError, match=r"and more at body\.0\.scale"):
            probe.compute()


def test_a_metric_without_an_opinion_takes_every_site():
    @dataclass(frozen=True)
    class Anywhere(Spectrum):
        name: ClassVar[str] = "anywhere"

        def admit_site(self, site: pc.Site, batch: pc.Activations) -> None:
            assert site.axes == batch.axes
            pc.Metric.admit_site(self, site, batch)

    model = Counted()
    said = refused(model, Anywhere(), "body.0.scale")
    assert model.passes == 13
    assert "eigenvalues above rounding" in said
