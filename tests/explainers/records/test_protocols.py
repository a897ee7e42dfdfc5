"""What other pipelines get wrong, each planted here."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from planted import (
    NEURONS,
    Reader,
    Words,
    planted_comparison,
    planted_texts,
    record,
    toy,
    unit_of,
)

import polycode_plugins as pc
from polycode_plugins.errors import DataError, PluginError
from polycode_plugins.explainers import evaluate, read_neuron_records
from polycode_plugins.explainers.base import (
    Explainer,
    Explanation,
    Simulation,
    Simulator,
    Verdict,
    direction_of,
    levels_of,
)
from polycode_plugins.explainers.lookup import TokenLookupExplainer
from polycode_plugins.explainers.ngram import NgramExplainer
from polycode_plugins.explainers.records import repeats as repeats_module
from polycode_plugins.explainers.records.protocols import (
    MARSHALL_KIRCHNER,
    OPENAI,
    check_disjoint,
    split,
)
from polycode_plugins.explainers.records.repeats import Repeats
from polycode_plugins.explainers.scoring.floors import floors_of, others
from polycode_plugins.explainers.scoring.judging import SimulatingJudge, cases_of


def made(n, document=0, values=(0.0, 5.0, 0.0)):
    return [
        record(["a", f"w{document + i}", "b"], np.asarray(values) - i / 100, document + i)
        for i in range(n)
    ]


# -- splits ----------------------------------------------------------------------------------------


def test_openai_splits_are_interleaved_as_published():
    unit = split("u", "s", "neuron", 1, OPENAI, top=made(22), random=made(16, 100, (0.0, 0.5, 0.0)))
    assert [r.document for r in unit.explain.top] == [0, 4, 8, 12, 16]
    assert [r.document for r in unit.calibration.top] == [1, 5, 9, 13, 17]
    assert [r.document for r in unit.score.top] == [2, 6, 10, 14, 18]
    assert unit.explain.random == ()
    assert [r.document for r in unit.calibration.random] == [100, 103, 106, 109, 112]
    assert [r.document for r in unit.score.random] == [101, 104, 107, 110, 113]


def test_the_papers_splits_are_even_and_odd_ranks_of_the_ten_highest():
    unit = split("u", "s", "neuron", 1, MARSHALL_KIRCHNER, top=made(12))
    assert [r.document for r in unit.explain.all()] == [0, 2, 4, 6, 8]
    assert [r.document for r in unit.score.all()] == [1, 3, 5, 7, 9]
    assert unit.calibration.all() == ()


def test_quantile_records_are_split_as_well():
    protocol = dataclasses.replace(OPENAI, n_quantile=9)
    unit = split(
        "u", "s", "neuron", 1, protocol, top=made(20), random=made(15, 100), quantile=made(9, 200)
    )
    found = [unit.explain.quantile, unit.calibration.quantile, unit.score.quantile]
    assert [[r.document for r in part] for part in found] == [
        [200, 203, 206],
        [201, 204, 207],
        [202, 205, 208],
    ]


def test_a_document_that_is_explained_and_scored_is_refused():
    with pytest.raises(DataError, match="document 3 is among the explain and the score"):
        check_disjoint(unit_of(made(1, 3), made(1, 3)))
    for unit in toy():
        check_disjoint(unit.evaluation.records)


def test_a_text_that_occurs_in_two_documents_is_not_scored_where_it_was_shown():
    twice = [dataclasses.replace(r, document=50 + r.document) for r in made(4)]
    with pytest.raises(DataError, match="the text of document 50 is among the explain and the sco"):
        check_disjoint(unit_of(made(1), twice[:1]))
    top = [r for pair in zip(made(4), twice, strict=True) for r in pair] + made(14, 10)
    random = [*twice, *made(12, 100)]
    unit = split("u", "s", "neuron", 1, OPENAI, top=top[:20], random=random[:15])
    assert [r.document for r in unit.explain.top] == [0, 10, 14, 18]
    assert [r.document for r in unit.score.top] == [2, 12, 16, 20]
    assert [r.document for r in unit.score.random] == [101, 104, 107, 110]
    spare = split("u", "s", "neuron", 1, OPENAI, top=top, random=[*random, *made(3, 200)])
    assert len(spare.score.random) == 5  # others stand in where there are some
    same = [dataclasses.replace(made(1)[0], document=i) for i in range(10)]
    with pytest.raises(DataError, match="are one text over and over"):
        split("u", "s", "neuron", 1, MARSHALL_KIRCHNER, top=same)


def test_no_unit_is_scored_on_a_text_that_it_was_explained_on():
    texts = planted_texts()
    comparison = pc.compare(
        Reader(), torch.cat([texts, texts]), "read", n_units=NEURONS, tokenizer=Words()
    )  # each text is two documents
    for unit in comparison:
        records = unit.evaluation.records
        shown = {r.tokens for r in records.explain.all()}
        assert not any(r.tokens in shown for r in records.score.all() + records.calibration.all())
        assert unit.score("correlation") is not None


@pytest.mark.parametrize("protocol", ["openai", "marshall-kirchner"])
def test_a_text_that_occurs_again_and_again_costs_no_unit_its_records(protocol):
    texts = planted_texts()
    repeated = torch.cat([texts, texts[::2], texts[::3], texts[:5].repeat(8, 1)])
    options = {"n_units": NEURONS, "tokenizer": Words(), "protocol": protocol, "judge": False}
    found, alone = (pc.compare(Reader(), t, "read", **options) for t in (repeated, texts))
    for unit, other in zip(found, alone, strict=True):
        scored, expected = unit.evaluation.records.score, other.evaluation.records.score
        assert len(scored.all()) == (10 if protocol == "openai" else 5)
        assert [r.row for r in scored.all()] == [r.row for r in expected.all()]
        assert unit.score("correlation") == other.score("correlation")


@pytest.mark.parametrize("recent", [2, 10_000])
def test_repeats_are_known_whatever_the_batches_are(recent, monkeypatch):
    monkeypatch.setattr(repeats_module, "_RECENT", recent)
    tokens = torch.randint(0, 3, (400, 4), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(4)[None] < torch.randint(1, 5, (400, 1))
    first: dict[tuple[int, ...], int] = {}
    texts = [tuple(t[m].tolist()) for t, m in zip(tokens, mask, strict=True)]
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    expected = sorted(set(range(400)) - set(first.values()))
    for size in (1, 7, 400):
        repeats, found = Repeats(), []
        for i in range(0, 400, size):
            part = slice(i, i + size)
            found += repeats.among(torch.arange(400)[part], tokens[part], mask[part]).tolist()
        assert found == expected


def test_one_document_is_too_few():
    text = "one long text. " * 400
    with pytest.raises(DataError, match="the texts hold 1 documents"):
        pc.compare(texts=[text], sites="blocks.1.mlp.hook_post", n_units=2, judge=False)


def test_normalisation_is_openais_and_its_maximum_is_of_explaining_records():
    assert levels_of(np.array([-3.0, 0.0, 0.99, 1.0, 5.4, 10.0, 12.0]), 10.0).tolist() == [
        0, 0, 0, 1, 5, 10, 10,
    ]  # fmt: skip
    assert levels_of(np.array([1.0, 2.0]), 0.0).tolist() == [0, 0]
    unit = unit_of(made(1), [record(["x", "y"], [50.0, 0.0], 9)])
    assert unit.maximum == 5.0
    assert unit.levels(unit.score.top[0]).tolist() == [10, 0]


# -- planted units ---------------------------------------------------------------------------------


def test_a_unit_of_one_word_is_explained_and_another_units_explanation_is_not():
    neurons = [u for u in toy() if u.kind == "neuron"]
    assert len(neurons) == NEURONS
    for i, unit in enumerate(neurons):
        assert unit.evaluation.explanation.text.endswith(f": ' word{i}' 10.0")
        assert unit.score("correlation") > 0.95
        assert unit.score("auprc") == 1
        assert unit.score("detection") == 1
        assert unit.score("fuzzing") == 1
        floors = unit.evaluation.floors
        assert floors["shuffled"].values["auprc"] < 0.3
        assert floors["oracle"].values["correlation"] > 0.99
    found = [u.evaluation.floors["shuffled"].values["correlation"] for u in neurons]
    shuffled = [r for r in found if r is not None]  # None: the other word is in none of the texts
    assert len(shuffled) >= NEURONS // 2
    # Two words exclude each other at a token, so that chance is a little below 0.
    assert np.mean(shuffled) == pytest.approx(0, abs=0.05)


def test_an_ngram_finds_what_a_single_token_cannot():
    rng = np.random.default_rng(0)

    def text(i):
        tokens = [str(t) for t in rng.choice(["of", "the", "a"], 40)]
        return record(
            tokens, [9.0 * (i > 0 and tokens[i - 1 : i + 1] == ["of", "the"]) for i in range(40)], i
        )

    unit = unit_of([text(i) for i in range(6)], [text(i) for i in range(6, 12)])
    scores = {
        e.name: evaluate([unit], e, floors=())[0].scores.values["correlation"]
        for e in (TokenLookupExplainer(), NgramExplainer(2), NgramExplainer(1))
    }
    assert scores["token-lookup"] < 0.8
    (ngram,) = evaluate([unit], NgramExplainer(2), floors=())
    assert ngram.scores.values["correlation"] > 0.99
    assert "'ofthe' 9" in ngram.explanation.text or "'ofthe' 10" in ngram.explanation.text


# -- failures --------------------------------------------------------------------------------------


class Half(Explainer):
    """Refuses every second unit, and fails to simulate some texts of the others."""

    name = "half"

    def __init__(self, lost: int) -> None:
        self.lost = lost

    def explain_many(self, units, *, seed=0):
        good = TokenLookupExplainer().explain_many(units)
        return [
            e if i % 2 else Explanation.failed(e.unit, self.name, "it refused")
            for i, e in enumerate(good)
        ]

    def simulator(self):
        return Losing(self.lost)


class Losing(Simulator):
    name = "losing"

    def __init__(self, lost: int) -> None:
        self.lost = lost

    def simulate_many(self, tasks):
        found = TokenLookupExplainer().simulator().simulate_many(tasks)
        for simulations in found:
            simulations[: self.lost] = [Simulation.failed("unparsable")] * self.lost
        return found


def test_failures_are_counted_and_never_scored():
    comparison = planted_comparison(explainer=Half(3), units="neuron")
    assert comparison.failures == {"it refused": NEURONS // 2}
    for i, unit in enumerate(comparison):
        scores = unit.evaluation.scores
        if i % 2:
            assert scores.n_failed == 3
            assert scores.values["correlation"] > 0.9
        else:
            assert set(scores.values.values()) == {None}
            assert scores.reasons["correlation"] == "no explanation: it refused"
            assert unit.evaluation.simulations == ()
    frame = comparison.to_dataframe()
    assert frame.loc[frame.state == "failed", "correlation"].isna().all()
    (contrast,) = comparison.contrast("neuron", "neuron")[-1:]
    assert contrast.n == (NEURONS // 2, NEURONS // 2)
    assert contrast.undefined == (NEURONS // 2, NEURONS // 2)


def test_a_unit_whose_simulations_mostly_fail_has_no_score():
    comparison = planted_comparison(explainer=Half(6), units="neuron")
    scores = comparison.units[1].evaluation.scores
    assert scores.values["correlation"] is None
    assert scores.reasons["correlation"] == "the simulation failed on most texts: unparsable"


def test_a_silent_unit_fails_rather_than_scoring():
    silent = unit_of(
        [record(["a", "b"], [-1.0, 0.0], i) for i in range(2)], [record(["a"], [1.0], 9)]
    )
    for explainer in (TokenLookupExplainer(), NgramExplainer()):
        (found,) = evaluate([silent], explainer)
        assert found.explanation.state == "failed"
        assert set(found.scores.values.values()) == {None}
        assert found.floors["oracle"].values["correlation"] is None


def test_an_explainer_that_answers_too_little_is_refused():
    class Short(TokenLookupExplainer):
        def explain_many(self, units, *, seed=0):
            return super().explain_many(units, seed=seed)[:-1]

    class Shifted(Simulator):
        name = "shifted"

        def simulate_many(self, tasks):
            return [[Simulation(np.zeros(len(t) + 1)) for t in task.texts] for task in tasks]

    unit = unit_of(made(3), made(3, 50))
    with pytest.raises(PluginError, match="0 explanations of 1 units"):
        evaluate([unit], Short())
    with pytest.raises(PluginError, match="one activation for each token"):
        evaluate([unit], TokenLookupExplainer(), simulator=Shifted())


# -- controls --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 17])
def test_a_shuffled_explanation_is_seeded_and_never_the_units_own(n):
    for seed in range(50):
        found = others(n, range(n), seed)
        assert all(j is not None and j != i for i, j in enumerate(found))
        assert sorted(found) == list(range(n))
        assert found == others(n, range(n), seed)
    if n > 3:
        assert others(n, range(n), 0) != others(n, range(n), 1)
    assert others(3, [1], 0) == [1, None, 1]
    assert others(2, [], 0) == [None, None]


def test_the_other_sign_of_a_unit_is_not_another_unit():
    of = [f"neuron {i // 2}" for i in range(12)]
    for seed in range(50):
        found = others(12, range(12), seed, of)
        assert sorted(found) == list(range(12))
        assert all(of[i] != of[j] for i, j in enumerate(found))
    assert others(3, [0, 1], 0, ["a", "a", "b"])[:2] == [None, None]
    both = planted_comparison(units="neuron", signs="both", explainer="ngram", floors=("shuffled",))
    assert [direction_of(u.evaluation.records) for u in both] == [
        f"neuron {i // 2}" for i in range(2 * NEURONS)
    ]


def test_a_single_unit_has_no_shuffled_floor_and_says_so():
    unit = unit_of(made(3), made(3, 50))
    explanations = TokenLookupExplainer().explain_many([unit])
    (floors,) = floors_of([unit], explanations, TokenLookupExplainer().simulator(), ("shuffled",))
    assert floors["shuffled"].values["correlation"] is None
    assert floors["shuffled"].reasons["correlation"] == "there is no other unit's"


def test_a_constant_answer_scores_nothing():
    for unit in toy():
        constant = unit.evaluation.floors["constant"]
        assert constant.values["correlation"] is None
        assert constant.values["r_squared"] < 0
        chance = np.mean(
            [r >= 5 for s in unit.evaluation.records.score.all()
             for r in unit.evaluation.records.levels(s)]
        )  # fmt: skip
        assert constant.values["auprc"] == pytest.approx(chance, abs=0.02)


def test_detection_and_fuzzing_give_a_judge_of_one_answer_chance():
    unit = next(u for u in toy() if u.kind == "neuron").evaluation
    cases = cases_of(unit.records, unit.explanation, 0)
    assert sum(cases.truth[1]) * 2 == len(cases.truth[1])
    for indices, tokens in zip(cases.tasks[1].marked, cases.tasks[1].texts, strict=True):
        assert set(indices) <= set(range(len(tokens)))

    class Yes(SimulatingJudge):
        def judge_many(self, tasks):
            return [[Verdict(True) for _ in task.texts] for task in tasks]

    class Judged(TokenLookupExplainer):
        def judge(self):
            return Yes(self.simulator())

    (found,) = evaluate([unit.records], Judged(), floors=())
    assert found.scores.values["detection"] == 0.5
    assert found.scores.values["fuzzing"] == 0.5


def test_a_negative_slope_of_the_calibration_is_said_and_turns_the_sign():
    class Inverse(Simulator):
        name = "inverse"

        def simulate_many(self, tasks):
            found = TokenLookupExplainer().simulator().simulate_many(tasks)
            return [[Simulation(10 - s.expected) for s in sims] for sims in found]

    plain = planted_comparison(units="neuron", simulator=Inverse())
    turned = planted_comparison(units="neuron", simulator=Inverse(), calibrate="linear")
    for a, b in zip(plain, turned, strict=True):
        assert a.score("correlation") < -0.9
        assert not a.evaluation.calibration.warning
        assert b.score("correlation") == pytest.approx(-a.score("correlation"), abs=1e-9)
        assert "negative slope" in b.evaluation.calibration.warning
        assert b.score("r_squared") > 0.9
    with pytest.raises(DataError, match="keeps no records for a calibration"):
        planted_comparison(protocol="marshall-kirchner", calibrate="linear")


def test_raw_and_one_sided_scores_are_both_given():
    score = [record(["a", "b", "c", "d"], [5.0, -5.0, 0.0, -1.0], 9)]
    unit = unit_of([record(["a", "b", "c", "d"], [5.0, -5.0, 0.0, -1.0], 1)], score)
    (found,) = evaluate([unit], TokenLookupExplainer(), floors=("oracle",))
    assert found.scores.values["correlation_one_sided"] == pytest.approx(1)
    raw = np.corrcoef([5, -5, 0, -1], [10, 0, 0, 0])[0, 1]
    assert found.scores.values["correlation"] == pytest.approx(raw)
    assert found.floors["oracle"].values["correlation"] == pytest.approx(raw)


# -- OpenAI's files --------------------------------------------------------------------------------


def neuron_record(n_top=20, n_random=15):
    def texts(n, start, high):
        return [
            {"tokens": [f"t{start + i}", " x"], "activations": [high - i / 50, 0.1]}
            for i in range(n)
        ]

    top, random = texts(n_top, 0, 9.0), texts(n_random, 100, 0.4)
    return {
        "dataclass_name": "NeuronRecord",
        "neuron_id": {"dataclass_name": "NeuronId", "layer_index": 3, "neuron_index": 41},
        "most_positive_activation_records": top,
        "random_sample": [top[2], *random],
        "random_sample_by_quantile": [],
    }


def test_openais_neuron_json_is_read_and_a_text_of_both_lists_counts_once(tmp_path):
    path = tmp_path / "41.json"
    path.write_text(json.dumps(neuron_record()))
    unit = read_neuron_records(path)
    assert (unit.unit, unit.site, unit.maximum) == ("neuron 41", "layer 3", 9.0)
    assert [r.tokens[0] for r in unit.score.top] == ["t2", "t6", "t10", "t14", "t18"]
    assert [r.tokens[0] for r in unit.score.random] == [f"t{100 + i}" for i in (1, 4, 7, 10, 13)]
    check_disjoint(unit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"random_sample": []}, "0 random records"),
        ({"most_positive_activation_records": None}, "no NeuronRecord"),
        ({"random_sample": [{"tokens": ["a"], "activations": [1, 2]}]}, "1 tokens and 2 values"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, change, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**neuron_record(), **change}))
    with pytest.raises(DataError, match=message):
        read_neuron_records(path)
