"""A comparison as a whole: planted differences, files, table, picture, export, control."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd
import pytest
import torch
from explanation_samples import sample_comparison
from planted import NEURONS, Reader, Words, planted_comparison, planted_texts, toy

import polycode_plugins as pc
from polycode_plugins import plugins
from polycode_plugins.errors import DataError, PluginError, SiteError, StateError
from polycode_plugins.explainers import (
    TokenLookupExplainer,
    directions,
)
from polycode_plugins.pages.pages import Warnings
from polycode_plugins.report.comparison_page import page_of


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


def test_the_embedded_model_is_compared_offline():
    comparison = sample_comparison()
    frame = comparison.to_dataframe()
    assert len(frame) == 12
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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"units": "neurone"}, DataError, "did you mean 'neuron'"),
        ({"units": ["neuron", "neuron"]}, DataError, "one kind twice"),
        ({"units": ["projection", "projection:sphere"]}, DataError, "one kind twice"),
        ({"units": "projection:spere"}, DataError, "did you mean 'sphere'"),
        ({"units": "projection:"}, DataError, "no distribution ''"),
        ({"units": "covariance:pink"}, DataError, "no colouring 'pink'"),
        ({"units": "neuron:sphere"}, DataError, "kinds with variants are"),
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


class Storing(TokenLookupExplainer):
    """Keeps the file it is told, and whether it is closed."""

    made: ClassVar[list[Storing]] = []

    def __init__(self, store="elsewhere", progress=True):
        self.store, self.progress, self.closed = store, progress, 0
        self.made.append(self)

    def close(self):
        self.closed += 1


@pytest.fixture
def storing(monkeypatch):
    load = plugins.load
    found = {("explainers", "storing"): Storing}
    monkeypatch.setattr(plugins, "load", lambda *n: found.get(n) or load(*n))


def test_a_named_explainer_lies_with_the_run_and_is_closed_whatever_happens(tmp_path, storing):
    planted_comparison(explainer="storing", out=tmp_path / "run", progress=False)
    first = Storing.made[-1]
    assert (first.store, first.progress) == (tmp_path / "run" / "answers.sqlite", False)
    assert first.closed == 1
    options = {"store": "mine"}
    planted_comparison(explainer="storing", out=tmp_path / "b", explainer_options=options)
    assert Storing.made[-1].store == "mine"
    with pytest.raises(DataError, match="neurons 0 to 7"):
        planted_comparison(explainer="storing", n_units=[99])
    assert Storing.made[-1].closed == 1
    assert Storing.made[-1].store == "elsewhere"  # there is no folder of a run
    given = Storing()
    planted_comparison(explainer=given)
    assert given.closed == 0


def test_a_finished_run_is_refused_before_an_explainer_is_made(tmp_path, storing):
    planted_comparison(out=tmp_path)
    made = len(Storing.made)
    with pytest.raises(StateError, match="holds a comparison"):
        planted_comparison(explainer="storing", out=tmp_path)
    assert len(Storing.made) == made
