"""The pass: the best texts of every unit, the same for any batch size, padding and documents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import NEURONS, Reader, Words, planted_texts

import polycode_plugins as pc
from polycode_plugins.adapters.base import DataOptions
from polycode_plugins.errors import DataError
from polycode_plugins.explainers.records.one_pass import run_pass
from polycode_plugins.explainers.records.protocols import OPENAI
from polycode_plugins.explainers.records.random_texts import RandomTexts
from polycode_plugins.explainers.records.token_strings import TokenStrings
from polycode_plugins.explainers.records.top_texts import TopTexts
from polycode_plugins.explainers.records.unit_records import records_of, shape_of
from polycode_plugins.explainers.units.directions import directions
from polycode_plugins.explainers.units.neurons import neurons
from polycode_plugins.explainers.units.projections import projections


def stream(
    batch: int, *, ties: bool = False, waiting: int = 0
) -> tuple[TopTexts, torch.Tensor, torch.Tensor]:
    """Forty texts of a dozen documents through TopTexts, in batches; the values and documents."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(40, 6, 7, generator=generator)
    if ties:
        values = values.round()
    documents = torch.sort(torch.randint(0, 12, (40,), generator=generator)).values
    top = TopTexts(7, 4, torch.device("cpu"))
    for i in range(0, 40, batch):
        part = values[i : i + batch]
        rows = torch.arange(i, i + len(part))
        read = part.movedim(-1, 0).contiguous()
        for first in (0, 3):  # three units and then the other four
            some = read[first : first + 3 + first // 3]
            top.look(first, some.amax(dim=2), some, rows, documents[i : i + batch])
        top.settle(at_least=waiting)
    top.settle()
    return top, values, documents


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("waiting", [0, 30, 1000])
@pytest.mark.parametrize("batch", [1, 3, 16, 40])
def test_top_texts_equal_brute_force_for_any_batch_size(batch, waiting, ties):
    top, values, documents = stream(batch, ties=ties, waiting=waiting)
    order = top.ranked()
    for unit in range(7):
        best: dict[int, tuple[float, int]] = {}
        for row in range(40):
            found = (float(values[row, :, unit].max()), -row)
            document = int(documents[row])
            best[document] = max(best.get(document, (-np.inf, 0)), found)
        expected = sorted(best.values(), reverse=True)[:4]
        slots = order[unit]
        assert top.values[unit, slots].tolist() == [v for v, _ in expected]
        assert top.rows[unit, slots].tolist() == [-row for _, row in expected]
        for slot, (_, row) in zip(slots, expected, strict=True):
            assert torch.equal(top.activations[unit, slot], values[-row, :, unit])
            assert top.documents[unit, slot] == documents[-row]


def test_fewer_documents_than_places_leave_places_empty():
    top = TopTexts(2, 5, torch.device("cpu"))
    values = torch.arange(12.0).reshape(2, 2, 3)
    top.look(0, values.amax(dim=2), values, torch.tensor([0, 1]), torch.tensor([7, 7]))
    assert torch.isfinite(top.values).sum(dim=1).tolist() == [1, 1]
    assert top.rows[0, top.ranked()[0, 0]] == 1


def test_random_texts_do_not_depend_on_the_batch_and_are_of_different_documents():
    values, mask = torch.randn(300, 4, 3), torch.ones(300, 4, dtype=torch.bool)
    rows, documents = torch.arange(300), torch.arange(300) // 5
    found = []
    for batch in (7, 300):
        pool = RandomTexts(20, seed=1)
        for i in range(0, 300, batch):
            part = slice(i, i + batch)
            pool.update(values[part], mask[part], rows[part], documents[part])
        found.append(pool.rows)
        assert len(set(pool.documents)) == 20
    assert found[0] == found[1]
    other = RandomTexts(20, seed=2)
    other.update(values, mask, rows, documents)
    assert other.rows != found[0]


def test_random_texts_are_drawn_evenly():
    values, mask = torch.zeros(100, 1, 1), torch.ones(100, 1, dtype=torch.bool)
    rows, counts = torch.arange(100), np.zeros(100)
    for seed in range(400):
        pool = RandomTexts(10, seed)
        pool.update(values, mask, rows, rows)
        counts[pool.rows] += 1
    assert abs(counts.mean() - 40) < 1e-9
    assert counts.std() < 1.35 * np.sqrt(400 * 0.1 * 0.9)  # binomial
    assert abs(np.corrcoef(counts, np.arange(100))[0, 1]) < 0.3


def collect(batch_size: int, units=neurons, **options):
    adapter = pc.load(Reader())
    return run_pass(
        adapter,
        planted_texts(),
        "read",
        lambda site, width: [units(width)],
        options=DataOptions(batch_size=batch_size),
        tokenizer=Words(),
        **options,
    )


def test_records_do_not_depend_on_the_batch_size():
    found = []
    for batch_size in (5, 240):
        (collector,), texts, strings = collect(batch_size)
        found.append([r for r, _ in records_of(collector, texts, strings, OPENAI)])
    for a, b in zip(*found, strict=True):
        pairs = ((a.score.all(), b.score.all()), (a.explain.all(), b.explain.all()))
        for left, right in (p for sets in pairs for p in zip(*sets, strict=True)):
            assert (left.tokens, left.row) == (right.tokens, right.row)
            assert np.array_equal(left.activations, right.activations)


def test_every_record_is_what_the_model_does_there():
    (collector,), texts, strings = collect(16)
    tokens, table = planted_texts(), Reader().read.weight.detach().numpy()
    for unit, (records, _) in enumerate(records_of(collector, texts, strings, OPENAI)):
        assert records.sign == 1
        for record in records.explain.all() + records.calibration.all() + records.score.all():
            ids = tokens[record.row].tolist()
            assert record.tokens == tuple(f" word{i}" for i in ids)
            assert record.activations == pytest.approx(table[ids, unit])


def test_padding_enters_nothing_and_moves_no_token():
    texts = ["alpha beta " * 3] + [f"def f{i}(x): return x + {i}" for i in range(60)]
    (collector,), kept, strings = run_pass(
        pc.load(),
        texts,
        "blocks.2.hook_resid_post",
        lambda site, width: [neurons(width, 4)],
        options=DataOptions(context=48),
    )
    alone = pc.load()
    for records, shape in records_of(collector, kept, strings, OPENAI):
        neuron = int(records.unit.split(" ")[1])
        assert np.isfinite(shape.sd)
        for record in records.explain.all()[:2] + records.score.all()[:2]:
            text = texts[record.document]
            assert "".join(record.tokens) == text
            options = DataOptions(context=len(record.tokens) + 1)  # no padding at all
            (batch,) = alone.stream([text], "blocks.2.hook_resid_post", options=options)
            expected = batch["blocks.2.hook_resid_post"].values[0, 1:, neuron].numpy()
            assert records.sign * expected == pytest.approx(record.activations, abs=2e-4)


def test_the_sign_is_fixed_by_explaining_records_and_both_signs_can_be_had():
    flipped = lambda width: directions(-torch.eye(width))  # noqa: E731
    (collector,), texts, strings = collect(16, flipped, signs="fixed")
    for records, _ in records_of(collector, texts, strings, OPENAI, signs="fixed"):
        assert records.sign == -1
        assert records.maximum == 5.0
    both = list(records_of(collector, texts, strings, OPENAI, signs="both"))
    assert [r.sign for r, _ in both] == [1, -1] * NEURONS
    assert len({r.unit for r, _ in both}) == 2 * NEURONS


def test_too_few_documents_are_refused():
    adapter = pc.load(Reader())
    (collector,), texts, strings = run_pass(
        adapter, planted_texts(9), "read", lambda s, w: [neurons(w)], options=DataOptions()
    )
    with pytest.raises(DataError, match="9 documents, and the protocol 'openai' needs 20 top"):
        list(records_of(collector, texts, strings, OPENAI))


def test_moments_are_those_of_the_activations():
    rng = np.random.default_rng(0)
    shape = shape_of(rng.normal(2, 3, 200_000).astype(np.float32), 10.0)
    assert shape.kurtosis == pytest.approx(3, abs=0.05)
    assert (shape.mean, shape.sd) == pytest.approx((2, 3), abs=0.02)
    assert shape_of(np.ones(5, dtype=np.float32), 1.0).kurtosis is None


def test_units_are_what_they_say():
    drawn = projections(64, 500, seed=3)
    assert drawn.directions.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    assert torch.equal(drawn.directions[:10], projections(64, 10, seed=3).directions)
    free = projections(64, 500, norm=None).directions
    assert float(free.var()) == pytest.approx(1 / 64, rel=0.03)
    signs = projections(16, 3, distribution="rademacher", norm=None).directions
    assert set(signs.abs().flatten().tolist()) == {0.25}
    x = torch.randn(2, 3, 64)
    chosen = neurons(64, [5, 9])
    assert torch.equal(chosen.project(x), x[..., [5, 9]])
    assert torch.allclose(drawn.project(x), x @ drawn.directions.T, atol=1e-5)
    for wrong in ([64], [-1]):
        with pytest.raises(DataError, match="neurons 0 to 63"):
            neurons(64, wrong)
    with pytest.raises(DataError, match="all zeros"):
        directions(torch.zeros(1, 4))


def test_what_units_read_keeps_its_precision_inside_autocast():
    units, values = projections(24, 100, seed=1), torch.randn(5, 40, 24)
    expected = units.project(values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(units.project(values), expected)
        parts = torch.cat([read for _, read in units.by_unit(values)])
    torch.testing.assert_close(parts, expected.movedim(-1, 0), rtol=1e-5, atol=1e-5)


def test_half_characters_stay_apart():
    class Bytes:
        def decode(self, ids):
            return {0: "\ufffd", 1: "\ufffd", 2: " é"}[ids[0]]

        def convert_ids_to_tokens(self, token):
            return {0: "Ġâ", 1: "Ģ", 2: "ĠÃ©"}[token]

    assert TokenStrings(Bytes())([0, 1, 2]) == (" \\xe2", "\\x80", " é")
