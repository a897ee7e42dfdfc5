"""A comparison as a whole: planted differences, files, table, picture, export, control."""

from __future__ import annotations

import dataclasses
import json
import math
import types

import numpy as np
import pandas as pd
import pytest
import torch
from planted import NEURONS, Reader, Words, planted_comparison, planted_texts, tiny, toy

import polycode_plugins as pc
from polycode_plugins.errors import DataError, PluginError, SiteError, StateError
from polycode_plugins.explainers import (
    TokenLookupExplainer,
    directions,
    independent,
    principal,
    random_weights,
)
from polycode_plugins.explainers.base import PaidExplainer
from polycode_plugins.explainers.comparison.contrasts import Sample, contrasts
from polycode_plugins.explainers.comparison.dry_run import DryRun
from polycode_plugins.explainers.comparison.relation import _matched
from polycode_plugins.files import storage
from polycode_plugins.pages.pages import Warnings
from polycode_plugins.report.comparison_page import page_of


def sample(scores, covariates=None):
    scores = np.asarray(scores, dtype=np.float64)
    if covariates is None:
        covariates = np.random.default_rng(len(scores)).normal(size=(len(scores), 2))
    return Sample(scores, np.asarray(covariates, dtype=np.float64))


def test_a_planted_difference_is_found_and_its_interval_covers():
    covered, rejected, false = 0, 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pairs = {
            f"layer {i}": (
                sample(rng.normal(0.3 + 0.1 * i, 0.1, 20)),
                sample(rng.normal(0.2 + 0.1 * i, 0.1, 20)),
            )
            for i in range(3)
        }
        last = contrasts(pairs, "a", "b", "correlation", seed=seed)[-1]
        assert last.interval is not None
        covered += last.interval[0] <= 0.1 <= last.interval[1]
        rejected += last.p_value < 0.05
        null = {k: (a, sample(a.scores + rng.normal(0, 0.1, 20))) for k, (a, _) in pairs.items()}
        false += contrasts(null, "a", "b", "correlation", seed=seed)[-1].p_value < 0.05
    assert covered >= 53  # of 60 at 95%
    assert rejected >= 57
    assert false <= 7


def test_a_difference_that_is_the_covariates_is_gone_when_adjusted():
    rng = np.random.default_rng(0)
    first = np.column_stack([rng.normal(2, 1, 80), rng.normal(size=80)])
    second = np.column_stack([rng.normal(0, 1, 80), rng.normal(size=80)])
    made = contrasts(
        {"l": (sample(0.1 * first[:, 0], first), sample(0.1 * second[:, 0], second))},
        "a",
        "b",
        "correlation",
    )[0]
    assert made.difference == pytest.approx(0.2, abs=0.05)
    assert made.p_value < 0.001
    assert made.adjusted == pytest.approx(0, abs=1e-9)


def test_effect_sizes_are_those_of_the_definition():
    a, b = np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.0])
    made = contrasts({"l": (sample(a), sample(b))}, "a", "b", "correlation")[0]
    pooled = math.sqrt((2 * a.var(ddof=1) + 3 * b.var(ddof=1)) / 5)
    assert made.effect == pytest.approx((a.mean() - b.mean()) / pooled)
    wins = np.mean([[np.sign(x - y) for y in b] for x in a])
    assert made.dominance == pytest.approx(wins)


def test_undefined_scores_are_left_out_and_counted_and_nothing_stays_nothing():
    made = contrasts({"l": (sample([0.5, math.nan]), sample([math.nan]))}, "a", "b", "auprc")
    assert made[0].n == (1, 0)
    assert made[0].undefined == (1, 1)
    assert made[0].difference is None
    assert made[-1].means == (0.5, None)


def test_neurons_of_one_word_beat_projections_of_them():
    contrast = toy().contrasts[-1]
    assert contrast.difference > 0
    assert contrast.means[0] > 0.95
    assert contrast.p_value < 0.05
    with pytest.raises(DataError, match="no component units here"):
        toy().contrast("component", "projection")
    with pytest.raises(DataError, match="did you mean 'correlation'"):
        toy().contrast(score="corelation")


def test_the_same_call_gives_the_same_numbers_whatever_the_batch_size():
    again = planted_comparison(batch_size=7)
    drop = ["requests"]
    pd.testing.assert_frame_equal(
        toy().to_dataframe().drop(columns=drop), again.to_dataframe().drop(columns=drop)
    )
    other = planted_comparison(seed=1).to_dataframe()
    assert not other.correlation.equals(toy().to_dataframe().correlation)


@pytest.mark.parametrize("options", [{}, {"calibrate": "percentile"}])
def test_a_comparison_is_saved_and_read_back_whole(tmp_path, options):
    comparison = planted_comparison(**options, out=tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "comparison.json",
        "units.parquet",
        "records.safetensors",
    }
    read = pc.Comparison.load(tmp_path / "run")
    pd.testing.assert_frame_equal(read.to_dataframe(), comparison.to_dataframe())
    assert read.contrasts == comparison.contrasts
    assert read.run == json.loads(json.dumps(comparison.run))
    for a, b in zip(read, comparison, strict=True):
        left, right = a.evaluation, b.evaluation
        assert left.explanation == right.explanation
        for split in ("explain", "calibration", "score"):
            pairs = getattr(left.records, split).all(), getattr(right.records, split).all()
            for x, y in zip(*pairs, strict=True):
                assert (x.tokens, x.document, x.row, x.unit) == (
                    y.tokens,
                    y.document,
                    y.row,
                    y.unit,
                )
                assert np.array_equal(x.activations, y.activations)
        for x, y in zip(left.simulations, right.simulations, strict=True):
            assert np.array_equal(x.expected, y.expected)
        x = right.simulations[0].expected
        assert np.array_equal(left.calibration(x), right.calibration(x))
    key = ("read", "projection", "trained")
    assert torch.equal(read.directions[key].directions, comparison.directions[key].directions)


def test_finished_damaged_and_foreign_folders_are_refused(tmp_path):
    folder = tmp_path / "run"
    toy().save(folder)
    with pytest.raises(StateError, match="holds a comparison"):
        planted_comparison(out=folder)
    planted_comparison(out=folder, fresh=True)
    with open(folder / "records.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(StateError, match="checksum"):
        pc.Comparison.load(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(StateError, match=r"other files \(thesis.tex\)"):
        toy().save(other)
    with pytest.raises(StateError, match=r"comparison.json is missing"):
        pc.Comparison.load(tmp_path / "nowhere")


@pytest.mark.parametrize("told", [{"spent": {"run": {}}}, {"spent": "much"}, {"warnings": [1]}])
def test_a_record_of_what_was_spent_or_warned_of_that_is_damaged_is_refused(tmp_path, told):
    path = toy().save(tmp_path) / "comparison.json"
    content = json.loads(path.read_text())
    content["run"] |= told
    path.write_text(json.dumps(content))
    with pytest.raises(StateError, match="is damaged"):
        pc.Comparison.load(tmp_path)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_kill_while_it_is_replaced_leaves_the_earlier_or_the_later_one(
    tmp_path, monkeypatch, where
):
    earlier, later = toy(), planted_comparison(seed=1)
    earlier.save(tmp_path)
    write = storage.write_text

    class Killed(BaseException):
        pass

    def killed(path, text):
        if where == "after":
            write(path, text)
        raise Killed

    monkeypatch.setattr(storage, "write_text", killed)
    with pytest.raises(Killed):
        later.save(tmp_path)
    monkeypatch.undo()
    found = pc.explainers.Comparison.load(tmp_path)
    expected = earlier if where == "before" else later
    assert found.run["seed"] == expected.run["seed"]
    pd.testing.assert_frame_equal(found.to_dataframe(), expected.to_dataframe())
    later.save(tmp_path)  # and it can be written again
    assert pc.explainers.Comparison.load(tmp_path).run["seed"] == 1


def test_the_embedded_model_is_compared_offline():
    comparison = tiny()
    frame = comparison.to_dataframe()
    assert len(frame) == 20
    assert set(frame.kind) == {"neuron", "projection"}
    assert frame.correlation.between(-1, 1).all()
    assert frame["floor.oracle"].mean() > 0.7
    assert abs(frame["floor.shuffled"].mean()) < 0.1
    assert frame.correlation.mean() > 0.2
    assert (frame.correlation - frame["floor.token-lookup"]).abs().max() < 1e-12
    assert [c.site for c in comparison.contrasts] == [*comparison.sites, ""]
    axes = comparison.plot()
    assert "random projections" in [t.get_text() for t in axes.get_legend().get_texts()]


def test_the_papers_protocol_takes_projections_as_they_are_and_scores_top_texts_alone():
    comparison = planted_comparison(protocol="marshall-kirchner")
    assert comparison.run["signs"] == "positive"
    for unit in comparison:
        scores = unit.evaluation.scores
        assert scores.n_records == 5
        assert scores.values["correlation"] == scores.values["correlation_top"]
        assert scores.reasons["correlation_random"] == "the protocol scores no random texts"


def test_components_are_those_of_the_activations():
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([9.0, 4.0, 1.0, 0.5])
    basis = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    x = torch.randn(4000, 4, generator=generator) * scale @ basis.T + 7
    covariance = pc.metrics.Covariance()
    covariance.update(pc.Activations(x, ("batch", "feature")))
    found = principal(covariance, 2)
    assert (found.directions @ basis[:, :2]).abs().diagonal().numpy() == pytest.approx(1, abs=0.01)
    assert found.project(x).mean(dim=0).abs().max() < 1e-2
    sources = torch.distributions.Laplace(0.0, 1.0).sample((6000, 3))
    mixing = torch.randn(3, 3, generator=generator)
    recovered = independent(sources @ mixing, 3, seed=0).project(sources @ mixing)
    r = np.corrcoef(recovered.T.numpy(), sources.T.numpy())[:3, 3:]
    assert np.abs(r).max(axis=0) == pytest.approx(1, abs=0.02)


def test_directions_of_ones_own_are_a_kind_beside_the_others():
    own = directions(torch.eye(NEURONS)[:3], ["first", "second", "third"], kind="probe")
    comparison = planted_comparison(units=["projection", own, "component"], n_units=4)
    assert comparison.kinds == ["projection", "probe", "component"]
    assert [u.name for u in comparison if u.kind == "probe"] == ["first", "second", "third"]
    assert all(u.score("correlation") > 0.95 for u in comparison if u.kind == "probe")


def test_projections_of_another_distribution_are_named_where_units_are(tmp_path):
    made = planted_comparison(units=["neuron", "projection:rademacher"], judge=False)
    assert made.kinds == ["neuron", "projection"]
    units = made.directions["read", "projection", "trained"]
    assert units.origin["distribution"] == "rademacher"
    assert units.directions.abs().flatten().numpy() == pytest.approx(NEURONS**-0.5)
    assert made.contrasts[-1].second == "projection"
    sphere = planted_comparison(units=["projection:sphere"], judge=False)
    units = sphere.directions["read", "projection", "trained"]
    assert units.origin["distribution"] == "sphere"
    assert pc.Comparison.load(sphere.save(tmp_path)).directions[
        "read", "projection", "trained"
    ].origin == {**units.origin}


def test_kinds_have_as_many_units_as_there_are_neurons_and_the_run_says_so(tmp_path):
    made = planted_comparison(n_units=10_000, control=True, judge=False, out=tmp_path)
    assert made.contrasts[-1].n == (NEURONS, NEURONS)
    (warning,) = made.run["warnings"]
    assert warning == (
        "10,000 units of each kind were asked for, and read has 8 neurons: there 8 of each are "
        "compared"
    )
    (shown,) = [
        p
        for p in page_of(pc.Comparison.load(tmp_path)).sections[0].parts
        if isinstance(p, Warnings)
    ]
    assert shown.sentences == [f"{warning}."]
    free = planted_comparison(units="projection", n_units=20, judge=False)
    assert len(free) == 20  # there are as many directions as one likes
    assert "warnings" not in free.run
    assert "warnings" not in toy().run


def test_the_control_shuffles_the_weights_and_puts_them_back():
    model = Reader()
    before = model.read.weight.detach().clone()
    with random_weights(model, seed=0):
        inside = model.read.weight.detach().clone()
    assert not torch.equal(inside, before)
    assert torch.equal(inside.flatten().sort().values, before.flatten().sort().values)
    assert torch.equal(model.read.weight, before)
    with pytest.raises(RuntimeError, match="stop"), random_weights(model):
        raise RuntimeError("stop")
    assert torch.equal(model.read.weight, before)
    comparison = planted_comparison(control=True)
    assert comparison.weights == ["trained", "random"]
    assert len(comparison) == 4 * NEURONS
    assert comparison.contrast(weights="random")[-1].n == (NEURONS, NEURONS)


def test_scores_are_related_to_a_layers_spectrum():
    sites = [f"blocks.{i}.hook_resid_post" for i in range(4)]
    comparison = pc.compare(sites=sites, n_units=3, limit=300, judge=False, floors=())
    analysis = pc.analyze(sites=sites, limit=300)
    table = comparison.relation(analysis)
    row = table[(table.quantity == "spectrum.exponent") & (table.kind == "neuron")].iloc[0]
    exponents = [analysis[s, "spectrum"].exponent for s in sites]
    frame = comparison.to_dataframe()
    means = [frame[(frame.site == s) & (frame.kind == "neuron")].correlation.mean() for s in sites]
    ranks = [np.argsort(np.argsort(v)) for v in (exponents, means)]
    assert row.rho == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert row.sites == 4
    with pytest.raises(DataError, match="analyse the sites that were compared"):
        toy().relation(analysis)


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_layer_whose_quantity_is_no_number_is_left_out_and_counted(missing):
    exponents = {f"layer {i}": float(i) for i in range(6)} | {"layer 2": missing}
    held = {
        site: types.SimpleNamespace(related=("exponent",), scalars=lambda v=v: {"exponent": v})
        for site, v in exponents.items()
    }

    class Analysed:
        metrics = ("spectrum",)
        results = held

        def __getitem__(self, key):
            return held[key[0]]

    unit = next(iter(toy()))
    units = []
    for i, site in enumerate(exponents):
        made = unit.evaluation
        scores = dataclasses.replace(
            made.scores, values={**made.scores.values, "correlation": 0.1 * i**2}
        )
        records = dataclasses.replace(made.records, site=site)
        made = dataclasses.replace(made, records=records, scores=scores)
        units.append(dataclasses.replace(unit, evaluation=made))
    comparison = dataclasses.replace(toy(), units=tuple(units), directions={})
    row = comparison.relation(Analysed()).iloc[0]
    assert row.rho == pytest.approx(1)
    assert (row.sites, row.left_out) == (5, 1)


def test_a_layer_is_known_by_its_number_where_its_own_site_was_not_analysed():
    compared = [f"blocks.{i}.mlp.hook_post" for i in (0, 1, 10)]
    residual = [f"blocks.{i}.hook_resid_post" for i in (0, 1, 10)]
    assert _matched(compared, residual) == dict(zip(compared, residual, strict=True))
    assert _matched(compared, [*residual, compared[0]]) == {compared[0]: compared[0]}
    two = [*residual, "blocks.0.hook_resid_pre"]  # which of them is the layer?
    assert _matched(compared, two) == dict(zip(compared[1:], residual[1:], strict=True))
    assert _matched(["read"], ["write"]) == {}


def test_the_export_is_json_lines_without_failures(tmp_path):
    lines = toy().export(tmp_path / "x.jsonl").read_text().splitlines()
    assert len(lines) == len(toy())
    first = json.loads(lines[0])
    assert {"modelId", "layer", "index", "description", "typeName", "explanationModelName"} <= set(
        first
    )
    assert (first["layer"], first["index"]) == ("read", 0)
    assert {s["name"] for s in first["scores"]} >= {"correlation", "detection"}


def test_a_dry_run_asks_nothing():
    class Costly(TokenLookupExplainer, PaidExplainer):
        def explain_many(self, units, *, seed=0):
            raise AssertionError("asked")

        def estimate(self, units, *, seed=0):
            return pc.explainers.Cost(requests=len(units))

    dry = DryRun(Costly())
    comparison = planted_comparison(explainer=dry)
    assert dry.cost.requests == len(comparison) == 2 * NEURONS
    assert all(u.score("correlation") is None for u in comparison)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"units": "neurone"}, DataError, "did you mean 'neuron'"),
        ({"units": ["neuron", "neuron"]}, DataError, "one kind twice"),
        ({"units": ["projection", "projection:sphere"]}, DataError, "one kind twice"),
        ({"units": "projection:spere"}, DataError, "did you mean 'sphere'"),
        ({"units": "projection:"}, DataError, "no distribution ''"),
        ({"units": "neuron:sphere"}, DataError, "a distribution is of projections alone"),
        ({"explainer": "token-lokup"}, PluginError, "did you mean 'token-lookup'"),
        ({"explainer": "ngram", "explainer_options": {"size": 3}}, PluginError, "this option"),
        ({"protocol": "opnai"}, DataError, "did you mean 'openai'"),
        ({"floors": ["shufled"]}, DataError, "did you mean 'shuffled'"),
        ({"n_units": 0}, DataError, "n_units is 0"),
        ({"n_units": [0, 99]}, DataError, "neurons 0 to 7"),
    ],
)
def test_mistakes_end_in_a_sentence(options, error, message):
    with pytest.raises(error, match=message):
        planted_comparison(**options)


def test_sites_and_inputs_that_cannot_be_explained_are_refused():
    with pytest.raises(SiteError, match="no site matches"):
        pc.compare(Reader(), planted_texts(), "raed", tokenizer=Words())
    with pytest.raises(DataError, match="no tokens"):
        pc.compare(torch.nn.Sequential(torch.nn.Linear(4, 3)), torch.randn(30, 5, 4), "0")


def test_a_dry_run_counts_by_estimators_and_probes_nothing():
    class Estimating(TokenLookupExplainer, PaidExplainer):
        def estimate(self, units, *, seed=0):
            return pc.explainers.Cost()

        def simulator(self):
            raise AssertionError("probed")

        def estimators(self):
            class Counting(type(TokenLookupExplainer().simulator())):
                def estimate(self, tasks):
                    return pc.explainers.Cost(requests=sum(len(t.texts) for t in tasks))

            return Counting(), None

    dry = DryRun(Estimating())
    planted_comparison(explainer=dry, judge=False, floors=("shuffled", "empty", "oracle"))
    assert dry.cost.requests == 2 * NEURONS * 10 * 3  # the texts to score, and two floors of them
