"""The metric on sites of one run: which samples, which pairs, what is said of them."""

from __future__ import annotations

import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.activations import Activations, Site
from polycode_plugins.metrics import CKA, MINE, CKAResult, Reservoir
from polycode_plugins.metrics.pairs import PairMetric, Partner
from polycode_plugins.runs.gathering import Statistics

TOKENS = ("batch", "position", "feature")
IMAGE = ("batch", "channel", "height", "width")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gathered(sites: dict[str, Activations], metric: CKA | None = None) -> tuple[Statistics, CKA]:
    metric = CKA() if metric is None else metric
    statistics = Statistics([metric], [Site(name, i) for i, name in enumerate(sites)])
    for name, batch in sites.items():
        statistics.receive(name, batch)
    return statistics, metric


def results(sites: dict[str, Activations], metric: CKA | None = None) -> dict[str, CKAResult]:
    statistics, metric = gathered(sites, metric)
    found = statistics.compute_all(metric)
    assert found is not None
    return dict(found)  # type: ignore[arg-type]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh())


def test_sites_of_a_run_as_arrays_say_it():
    x = normal(400, 10)
    analysis = pc.measure({"x": x, "y": x + normal(400, 10, seed=1)}, ["cka"])
    direct = CKA().measure(x, x + normal(400, 10, seed=1))
    one, other = analysis["x", "cka"], analysis["y", "cka"]
    assert other.to_previous == pytest.approx(direct.to_previous, abs=1e-6)
    assert other.interval == pytest.approx(direct.interval, abs=1e-6)
    assert other.interval[0] < 0.5 < other.interval[1]  # x'x / (x'x + z'z)
    assert one.to_previous is None
    assert one.to_last == other.to_first == other.to_previous
    assert other.naive[0] > other.cka[0]
    assert (other.unit, other.n_samples, other.warnings) == ("documents", 400, ())
    frame = analysis.to_dataframe()
    assert math.isnan(frame["cka.to_previous"][0])
    assert frame["cka.groups"].tolist() == [64, 64]


def test_all_at_once_and_one_by_one_are_the_same_and_so_is_a_hook():
    sites = {
        name: Activations(normal(40, 6, 5, seed=i), TOKENS, rows=torch.arange(40))
        for i, name in enumerate("abc")
    }
    statistics, metric = gathered(sites)
    together = statistics.compute_all(metric)
    assert together is not None
    for site in "abc":
        assert statistics.compute(site, metric).to_dict() == together[site].to_dict()
    hook = metric.as_hook()

    class Point:
        def __init__(self, name: str) -> None:
            self.name = name

    for name, batch in sites.items():
        hook(batch.values, hook=Point(name))
    for site, result in hook.compute().items():
        assert result.cka == pytest.approx(together[site].cka, abs=1e-6)


def test_shards_and_saved_runs_give_what_one_run_gives(tmp_path):
    data = normal(300, 8)
    options = {"metrics": [CKA(samples=120)], "sites": ["1", "3"], "batch_size": 16}
    whole = pc.analyze(network(), data, **options)
    parts = [
        pc.analyze(network(), data, **options, shard=(i, 3), out=tmp_path / str(i))
        for i in range(3)
    ]
    loaded = [pc.Analysis.load(tmp_path / str(i)) for i in range(3)]
    assert loaded[0]["3", "cka"].to_dict() == parts[0]["3", "cka"].to_dict()
    joined = loaded[2].merge(loaded[0]).merge(loaded[1])
    for site in ("1", "3"):
        assert joined[site, "cka"].to_dict() == whole[site, "cka"].to_dict()
    assert whole["3", "cka"].n_samples == 120


def test_documents_are_kept_and_told_apart_from_rows():
    documents = torch.arange(40) // 2
    rows = Activations(normal(40, 6, 3), TOKENS, rows=torch.arange(40), documents=documents)
    found = results({"a": rows, "b": rows})
    assert found["b"].groups.tolist() == [20, 20]
    each = torch.arange(40)[:, None] * 3 + torch.arange(6)[None] // 2  # three in every row
    packed = Activations(normal(40, 6, 3), TOKENS, rows=torch.arange(40), documents=each)
    assert results({"a": packed, "b": packed})["b"].groups.tolist() == [64, 64]
    own = Activations(normal(40, 6, 3), TOKENS, rows=torch.arange(40))
    assert results({"a": own, "b": own})["b"].groups.tolist() == [40, 40]


def test_a_reservoir_of_before_has_rows_for_documents():
    reservoir = Reservoir(50)
    documents = torch.zeros(20, dtype=torch.int64)
    reservoir.update(Activations(normal(20, 3), ("batch", "feature"), documents=documents))
    state = reservoir.state()
    assert state.pop("documents").tolist() == [0] * 20
    old = Reservoir(50)
    old.load_state(state)
    assert set(old.samples()[1].documents.tolist()) == {-2}


def test_too_few_documents_fall_back_to_rows_and_samples_and_say_so():
    two = torch.arange(40) // 20
    few = Activations(normal(40, 6, 3), TOKENS, rows=torch.arange(40), documents=two)
    rows = results({"a": few, "b": few})["b"]
    assert (rows.unit, rows.interval, rows.groups[0]) == ("rows", None, 40)
    assert "too few documents" in rows.warnings[0]
    one = Activations(normal(2, 50, 3), TOKENS, rows=torch.arange(2))
    samples = results({"a": one, "b": one})["b"]
    assert (samples.unit, samples.interval) == ("samples", None)
    assert "too few rows" in samples.warnings[0]
    seven = torch.arange(42) // 6
    some = Activations(normal(42, 3), ("batch", "feature"), documents=seven)
    known = results({"a": some, "b": some})["b"]
    assert (known.unit, known.interval) == ("documents", None)
    assert (
        "the documents are worth 7.0 of one length, too few for an interval, which needs 10"
        in known.warnings[0]
    )
    with pytest.raises(
        pc.DataError, match="3 samples in common are too few for CKA, which needs 5"
    ):
        CKA().measure(normal(3, 2), normal(3, 2))


def test_one_giant_document_is_no_ten():
    documents = torch.cat([torch.zeros(300), torch.arange(1, 21)]).long()
    values = Activations(normal(320, 4), ("batch", "feature"), documents=documents)
    found = results({"a": values, "b": values})["b"]
    assert found.unit == "rows"


def test_maps_of_other_resolution_are_compared_where_they_meet():
    rows = torch.arange(30)
    fine = Activations(normal(30, 4, 8, 8), IMAGE, rows=rows)
    coarse = Activations(nn.functional.avg_pool2d(fine.values, 2), IMAGE, rows=rows)
    vector = Activations(fine.values.mean((2, 3)), ("batch", "feature"), rows=rows)
    found = results({"fine": fine, "coarse": coarse, "vector": vector})
    assert found["fine"].samples.tolist() == [1920, 480, 30]
    assert found["vector"].samples.tolist() == [30, 30, 30]
    # A pixel of noise and the mean of k pixels with it: 1/k of the variance is common.
    truth = {"coarse": [1 / 4], "vector": [1 / 64, 1 / 16]}
    for name, values in truth.items():
        for i, value in enumerate(values):
            assert found[name].low[i] < value < found[name].high[i]
    assert found["vector"].groups.tolist() == [30, 30, 30]
    assert np.allclose([r.cka[0] for r in found.values()], found["fine"].cka)


def test_streams_of_other_positions_have_none():
    rows = torch.arange(60)
    masks = [torch.ones(60, 4, dtype=torch.bool) for _ in range(2)]
    masks[1][:, :2] = False
    values = normal(60, 4, 3)
    encoder, decoder = (Activations(values, TOKENS, mask=m, rows=rows) for m in masks)
    found = results({"a": encoder, "b": encoder, "c": decoder})
    assert np.isfinite(found["a"].cka).tolist() == [True, True, False]
    assert "1 sites are at other positions" in found["a"].warnings[0]
    assert found["c"].to_previous is None
    again = CKAResult.from_dict(json.loads(json.dumps(found["a"].to_dict(), allow_nan=False)))
    assert again.to_dict() == found["a"].to_dict()


def test_few_samples_that_make_the_variance_are_named():
    values = normal(400, 6)
    values[:4] *= 200
    warned = CKA().measure(values, values + normal(400, 6, seed=1))
    assert "2 of 400 samples make half of the variance" in warned.warnings[0]
    assert warned.ruled == 2
    assert CKA().measure(normal(400, 6), normal(400, 6, seed=1)).ruled == 0


def test_a_site_that_never_changes_is_named():
    with pytest.raises(pc.DataError, match="cka: site 'b': the activations are constant over 50"):
        pc.measure({"a": normal(50, 3), "b": torch.full((50, 3), 0.1)}, ["cka"])


def test_a_site_alone_says_so_and_keeps_its_samples():
    result = pc.measure({"a": normal(50, 3)}, ["cka"])["a", "cka"]
    assert (result.to_previous, result.to_first, result.to_last) == (None, None, None)
    assert "only site of the run" in result.warnings[0]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(pc.DataError, match="CKA compares two arrays"):
        CKA().measure(normal(20, 2))
    with pytest.raises(pc.DataError, match="x has 20 samples and y has 21"):
        CKA().measure(normal(20, 2), normal(21, 2))
    with pytest.raises(pc.DataError, match="groups names 3 samples"):
        CKA().measure(normal(20, 2), normal(20, 2), groups=[0, 1, 2])
    with pytest.raises(pc.DataError, match="at least 1, not 0"):
        CKA(samples=0)
    assert CKA(samples=1).samples == 1
    with pytest.raises(pc.DataError, match="NaN or infinite"):
        CKA().measure(normal(20, 2) / 0, normal(20, 2))


def test_it_shares_the_reservoir_of_another_metric():
    statistics = Statistics([CKA(), MINE(samples=2048)], [Site("a", 0), Site("b", 1)])
    assert len(statistics._held["a"]) == 1


def test_the_plan_counts_what_all_sites_take_together():
    batch = Activations(normal(10, 7, 100), TOKENS, rows=torch.arange(10))
    statistics, _ = gathered(dict.fromkeys("abcde", batch))
    alone = Reservoir(2048).memory(batch, None)
    copies = 5 * 2048 * 100 * 4
    needs = statistics.memory(None)
    assert all(n.held == alone.held and n.computing > copies for n in needs.values())
    known = statistics.memory(10)["a"]
    assert known.computing < needs["a"].computing / 10


class Likeness(PairMetric):
    """A stranger's metric, by public names alone, with one result for all sites at once."""

    name = "likeness"
    result = CKAResult
    asked = 0

    def accumulators(self):
        return {"rows": Reservoir(64)}

    def partners_of(self, site, sites):
        return [s for s in sites if s is not site]

    def compute(self, accumulators, site):
        raise AssertionError

    def compute_pairs(self, accumulators, site, partners):
        raise AssertionError

    def compute_all(self, sites):
        type(self).asked += 1
        assert all(isinstance(one, Partner) for one in sites)
        made = CKA()._of
        from polycode_plugins.metrics.cka.samples import kept_site

        return made([kept_site(s.site.name, s.site.axes, s.accumulators["rows"]) for s in sites])


def test_a_strangers_metric_computes_all_sites_once():
    batches = {name: Activations(normal(50, 3, seed=i), ("batch", "feature"))
               for i, name in enumerate("abcd")}  # fmt: skip
    metric = Likeness()
    statistics = Statistics([metric], [Site(name, i) for i, name in enumerate(batches)])
    for name, batch in batches.items():
        statistics.receive(name, batch)
    from polycode_plugins.runs.analysis import finish

    analysis = finish(statistics, {})
    assert Likeness.asked == 1
    assert set(analysis.results) == set("abcd")


def test_pictures_and_chapter():
    analysis = pc.measure({c: normal(80, 4, seed=i) for i, c in enumerate("abc")}, ["cka"])
    ax = analysis["b", "cka"].plot()
    assert ax.get_ylabel() == "CKA with b"
    plt.close(ax.figure)
    from polycode_plugins.report.analysis_page import page_of

    page = page_of(analysis)
    (section,) = [s for s in page.sections if s.title == "Likeness of sites (CKA)"]
    kinds = [type(part).__name__ for part in section.parts]
    assert kinds == ["Prose", "Matrix", "Chart", "Table"]
    found = next(s for s in page.sections if s.id == "found")
    assert "changes most at" in found.parts[0].paragraphs[0]
