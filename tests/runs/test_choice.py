"""Which sites are analysed: by default those that can have a result; functions, "all"."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from capture_helpers import Mean
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import polycode_plugins as pc
from polycode_plugins.report.summary import doubts

X = torch.randn(300, 30, generator=torch.Generator().manual_seed(0))


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 3)).eval()


def test_narrow_sites_are_left_out_of_the_default_and_named(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(X, torch.zeros(300).long()), batch_size=50)
    for sites in (None, "all", ["!1"]):
        analysis = pc.analyze(classifier(), loader, ["spectrum", Mean()], sites)
        assert list(analysis) == (["0"] if sites == ["!1"] else ["0", "1"])
        assert "it has 3 features" in analysis.run["narrow"]["2"]
        assert "1 site left out, too narrow" in repr(analysis)
        said = str(analysis.warnings[-1])
        assert said.startswith("At 2: left out of the default choice")
        assert doubts(analysis.warnings, {})
    for named in ("2", ["0", "2"], "**", "*"):
        with pytest.raises(pc.DataError, match=r"site '2' can have no result.*'!2'"):
            pc.analyze(classifier(), loader, ["spectrum"], named)
    with pytest.raises(pc.DataError, match="site '2' can have no result"):
        pc.analyze(classifier()[2:], torch.randn(99, 40), ["spectrum"])  # nothing would be left
    whole = pc.analyze(classifier(), X, ["spectrum"], out=tmp_path / "a")
    again = pc.Analysis.load(tmp_path / "a")
    assert again.run["narrow"] == whole.run["narrow"]
    assert [str(w) for w in again.warnings] == [str(w) for w in whole.warnings]


def test_attach_and_measure_leave_them_out_too() -> None:
    model = classifier()
    with pc.attach(model, None, ["spectrum"]) as probe:
        model(X)
    assert list(probe.compute()) == ["0", "1"]
    assert list(probe.compute().run["narrow"]) == ["2"]
    with pc.attach(model, "2", ["spectrum"]) as probe:
        model(X)
    with pytest.raises(pc.DataError, match="can have no result"):
        probe.compute()
    cache = {"blocks.0.hook_resid_post": X, "blocks.0.ln1.hook_scale": X[:, :1]}
    with pytest.warns(UserWarning, match="too narrow are left out, 1 of them"):
        assert list(pc.measure(cache, ["spectrum"])) == ["blocks.0.hook_resid_post"]
    with pytest.raises(pc.DataError, match="can have no result"):
        pc.measure(cache, ["spectrum"], "**.hook_scale")
    with pytest.raises(pc.DataError, match="can have no result"):  # whose every tensor was given
        pc.measure({"wide": X, "narrow": X[:, :3]}, ["spectrum"])


def test_an_interrupted_run_goes_on_without_them(tmp_path: Path) -> None:
    def stopping() -> object:
        for index, part in enumerate(X.split(50)):
            if index == 3:
                raise KeyboardInterrupt
            yield part

    import polycode_plugins.runs.passes as passes

    before, passes.CHECKPOINT_SECONDS = passes.CHECKPOINT_SECONDS, 0.0
    try:
        with pytest.raises(KeyboardInterrupt):
            pc.analyze(classifier(), stopping(), ["spectrum"], out=tmp_path / "a")
        found = pc.analyze(classifier(), (p for p in X.split(50)), ["spectrum"], out=tmp_path / "a")
    finally:
        passes.CHECKPOINT_SECONDS = before
    assert list(found) == ["0", "1"]
    assert found.n_samples("0") == 300
    assert list(found.run["narrow"]) == ["2"]


def test_functions_of_a_name() -> None:
    def analysed(sites: object) -> list[str]:
        return list(pc.analyze(classifier(), X, Mean(), sites))

    assert analysed(lambda name: name in ("0", "2")) == ["0", "2"]
    assert analysed(lambda name: name.endswith(":in")) == ["0:in", "1:in", "2:in"]
    assert analysed("all") == ["0", "1", "2"]
    with pc.attach(classifier(), lambda name: name == "1", Mean()) as probe:
        probe._adapter.model(X)
    assert list(probe.compute()) == ["1"]
    assert list(pc.measure({"a": X, "b": X}, Mean(), lambda name: name == "b")) == ["b"]
    with pytest.raises(pc.SiteError, match="accepts none of the 6 names"):
        analysed(lambda name: False)
    for wrong in ([3], [lambda name: True]):
        with pytest.raises(pc.SiteError, match="one function of a name"):
            analysed(wrong)
        with pytest.raises(pc.SiteError, match="one function of a name"):
            pc.measure({"a": X}, Mean(), wrong)


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(200, 12)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.embed(input_ids)


def test_what_a_mask_left_out_is_recorded_by_every_way() -> None:
    ids, mask = torch.arange(540).reshape(60, 9) % 199, torch.ones(60, 9).long()
    mask[0, 3:] = mask[40, 1:] = 0
    model = Padded()
    batches = [
        {"input_ids": a, "attention_mask": b}
        for a, b in zip(ids.split(20), mask.split(20), strict=True)
    ]
    with pc.attach(model, "embed", Mean()) as probe:
        for batch in batches:
            model(**batch)
    attached = probe.compute().run["left_out"]["embed"]
    analysis = pc.analyze(model, batches, Mean(), "embed")
    assert sum(attached.values()) == sum(analysis.run["left_out"]["embed"].values()) == 14
    assert analysis.n_samples("embed") == probe.compute().n_samples("embed") == 526
    assert "14 positions left out" in repr(analysis)
    spectrum = pc.metrics.Spectrum(ranks=(1, None))
    parts = [pc.analyze(model, batches, spectrum, "embed", shard=(i, 2)) for i in range(2)]
    assert parts[0].merge(parts[1]).run["left_out"] == analysis.run["left_out"]
