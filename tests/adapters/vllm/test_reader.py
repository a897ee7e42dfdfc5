"""From packed steps to whole texts, on a model built as vLLM builds one; vLLM is not needed."""

from __future__ import annotations

import random

import pytest
import torch
from packed_engine import WIDTH, PackedEngine, PackedModel

from polycode_plugins.adapters.vllm.reader import Reader
from polycode_plugins.adapters.vllm.sites import Place, listed, places
from polycode_plugins.adapters.vllm.texts import Row
from polycode_plugins.errors import DataError, ModelError

TEXTS = {
    "0-8ed417e4": [3, 4, 5, 6, 7, 8, 9, 10, 11],
    "1-8847078f": [20, 21],
    "2-0a0b0c0d": [30, 31, 32, 33, 34],
}
A, B, C = TEXTS


class Seen(dict):
    """{site: {row: (values that count, document)}}"""

    def __call__(self, name, activations):
        mask = activations.mask
        for i, row in enumerate(activations.rows.tolist()):
            values = activations.values[i]
            values = values if mask is None else values[mask[i]]
            rows = self.setdefault(name, {})
            assert row not in rows, "a row came twice"
            rows[row] = values.clone(), int(activations.documents[i])


def reader_of(engine, sink, names=None, **options):
    known = {p.name: p for p in places(engine.model, WIDTH)}
    chosen = list(known.values()) if names is None else [known[name] for name in names]
    return Reader(engine, engine.model, chosen, sink, engine.context, **options)


def same(seen, engine, request, row):
    for name, values in engine.truth(request).items():
        torch.testing.assert_close(seen[name][row][0], values, msg=f"{name} of row {row}")


def test_every_site_of_chunks_and_decoding_is_that_of_the_whole_text():
    engine, seen = PackedEngine(TEXTS), Seen()
    reader = reader_of(engine, seen)
    engine.step({A: (0, 5), B: (0, 1)})
    engine.step({B: (1, 1), A: (5, 3)}, padding=3)
    engine.step({A: (8, 1), C: (0, 5)})
    assert reader.settle(under_way=False) == 0
    assert not reader.problems
    for row, request in enumerate(TEXTS):
        same(seen, engine, request, row)
    assert reader.report()["texts"] == 3
    assert reader.waiting.held == 0
    reader.close()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in engine.model.modules())


@pytest.mark.parametrize("scattered", [False, True])
def test_any_schedule_gives_the_same_texts(scattered):
    for seed in range(30):
        draw = random.Random(seed)
        engine, seen = PackedEngine(TEXTS), Seen()
        reader = reader_of(engine, seen)
        if scattered:  # no two free slots are side by side
            reader.waiting.release(reader.waiting.slots(1024)[::2])
        computed = dict.fromkeys(TEXTS, 0)
        while any(computed[r] < len(t) for r, t in TEXTS.items()):
            parts = {}
            for request in draw.sample(list(TEXTS), 3):
                left = len(TEXTS[request]) - computed[request]
                if left and draw.random() < 0.7:
                    count = draw.randint(1, left)
                    parts[request] = computed[request], count
                    computed[request] += count
            if parts:
                engine.step(parts, padding=draw.randint(0, 2))
            if draw.random() < 0.15:  # put off: computed again from the beginning
                computed[draw.choice(list(TEXTS))] = 0
        order = list(engine.requests)
        reader.settle(under_way=False)
        assert not reader.problems
        for row, request in enumerate(order):
            same(seen, engine, request, row)


def test_texts_are_handed_on_when_their_requests_have_ended():
    engine, seen = PackedEngine(TEXTS), Seen()
    reader = reader_of(engine, seen, ["model.layers.0"])
    engine.step({A: (0, 9), B: (0, 2)})
    engine.end(B)
    assert reader.settle(under_way=True) == 1
    assert list(seen["model.layers.0"]) == [1]
    engine.step({C: (0, 5)})
    assert reader.settle(under_way=False) == 0
    assert sorted(seen["model.layers.0"]) == [0, 1, 2]


def test_rows_of_the_data_have_their_numbers_documents_and_masks():
    engine, seen = PackedEngine(TEXTS), Seen()
    reader = reader_of(engine, seen, ["model.layers.1"], special=[21, 30])
    reader.texts.know({"0": Row(70, 7, (0, 3)), "1": Row(71, 7, ())})
    engine.step({A: (0, 9), B: (0, 2), C: (0, 5)})
    reader.settle(under_way=False)
    found = seen["model.layers.1"]
    truth = {r: engine.truth(r)["model.layers.1"] for r in TEXTS}
    torch.testing.assert_close(found[70][0], truth[A][[1, 2, 4, 5, 6, 7, 8]])
    torch.testing.assert_close(found[71][0], truth[B])  # what its mask says, not what is special
    torch.testing.assert_close(found[2][0], truth[C][1:])
    assert (found[70][1], found[71][1]) == (7, 7)
    assert sum(reader.left_out["model.layers.1"].values()) == 3


def test_what_has_ended_is_handed_on_before_the_room_is_full():
    texts = {f"{i}-00000000": [3 + i % 40] * 400 for i in range(20)}
    engine, seen = PackedEngine(texts), Seen()
    reader = reader_of(engine, seen, ["model.layers.0"], room=1024 * (4 * WIDTH + 8))
    for request in texts:
        engine.step({request: (0, 400)})
        engine.end(request)
    reader.settle(under_way=False)
    assert not reader.problems
    assert sorted(seen["model.layers.0"]) == list(range(20))


def test_pieces_of_a_long_text_are_of_one_document():
    engine, seen = PackedEngine(TEXTS), Seen()
    reader = reader_of(engine, seen, ["model.layers.0"], longest=4)
    engine.step({A: (0, 9), B: (0, 2)})
    engine.step({C: (0, 5)})
    reader.settle(under_way=False)
    found = seen["model.layers.0"]
    pieces = [found[row] for row in sorted(found)]
    assert [len(values) for values, _ in pieces] == [4, 4, 1, 2, 4, 1]
    assert [document for _, document in pieces] == [0, 0, 0, 1, 2, 2]
    whole = torch.cat([values for values, document in pieces if document == 0])
    torch.testing.assert_close(whole, engine.truth(A)["model.layers.0"])


# -- what goes wrong -------------------------------------------------------------------------------


def test_the_first_part_alone_is_not_the_stream():
    """What a port of this kind got wrong: it shows here."""
    engine, seen = PackedEngine(TEXTS), Seen()
    first = Place("first", "model.layers.0", "out", WIDTH)
    reader = Reader(engine, engine.model, [first], seen, engine.context)
    engine.step({A: (0, 9)})
    reader.settle(under_way=False)
    off = seen["first"][0][0] - engine.truth(A)["model.layers.0"]
    assert float(off.abs().max()) > 0.1


def test_two_tensors_that_nothing_adds_are_no_stream():
    engine, seen = PackedEngine(TEXTS, PackedModel(faulty=True)), Seen()
    reader = reader_of(engine, seen, ["model.layers.0", "model.layers.1", "model.layers.0.mlp"])
    engine.step({A: (0, 9)})
    reader.settle(under_way=False)
    assert set(reader.problems) == {"model.layers.0", "model.layers.1"}
    assert "not proven" in str(reader.problems["model.layers.0"])
    assert list(seen) == ["model.layers.0.mlp"]


def test_a_norm_that_adds_something_else_proves_nothing():
    engine, seen = PackedEngine(TEXTS), Seen()
    engine.model.model.layers[1].input_layernorm.register_forward_pre_hook(
        lambda _m, given: (given[0] * 2.0, given[1]) if len(given) == 2 else None, prepend=True
    )
    reader = reader_of(engine, seen, ["model.layers.0", "model.layers.1"])
    engine.step({A: (0, 9)})
    reader.settle(under_way=False)
    assert set(reader.problems) == {"model.layers.0"}


def test_tokens_from_a_prefix_cache_are_an_error_and_the_requests_go_on():
    engine, seen = PackedEngine(TEXTS), Seen()
    reader = reader_of(engine, seen, ["model.layers.0"])
    engine.step({A: (4, 5)})
    engine.step({B: (0, 2)})
    reader.settle(under_way=False)
    assert isinstance(reader.problems["model.layers.0"], DataError)
    assert "enable_prefix_caching=False" in str(reader.problems["model.layers.0"])
    assert not seen


def test_a_step_that_failed_midway_spoils_what_was_under_way():
    engine, seen = PackedEngine(TEXTS), Seen()
    reader = reader_of(engine, seen, ["model.layers.0"])

    def fail(*_):
        raise RuntimeError("the device is gone")

    handle = engine.model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError):
        engine.step({A: (0, 9)})
    handle.remove()
    engine.step({B: (0, 2)})
    reader.settle(under_way=False)
    assert "failed on its way" in str(reader.problems["model.layers.0"])


def test_a_block_that_is_passed_by_in_some_steps_is_refused():
    engine, seen = PackedEngine(TEXTS), Seen()
    reader = reader_of(engine, seen, ["model.layers.0", "model.layers.1"])
    engine.step({A: (0, 5)})
    kept = engine.model.model.layers[1]
    engine.model.model.layers = engine.model.model.layers[:1]
    engine.step({A: (5, 4)})
    engine.model.model.layers.append(kept)
    reader.settle(under_way=False)
    assert "in some steps and not in others" in str(reader.problems["model.layers.1"])


def test_warming_up_is_no_step():
    engine, seen = PackedEngine(TEXTS), Seen()
    reader = reader_of(engine, seen, ["model.layers.0"])
    engine.step({A: (0, 9)})
    engine.metadata = None
    engine.model(input_ids=torch.zeros(4, dtype=torch.int64), positions=torch.arange(4))
    reader.settle(under_way=False)
    assert list(seen["model.layers.0"]) == [0]
    assert not reader.problems


def test_a_sink_that_raises_is_a_problem_of_its_site():
    engine = PackedEngine(TEXTS)

    def refuse(name, _):
        if name == "model.layers.0":
            raise DataError("too much")

    reader = reader_of(engine, refuse, ["model.layers.0", "model.layers.1"])
    engine.step({A: (0, 9)})
    reader.settle(under_way=False)
    assert set(reader.problems) == {"model.layers.0"}
    assert reader.report()["problems"] == {"model.layers.0": ["DataError", "too much"]}


# -- names -----------------------------------------------------------------------------------------


def test_sites_have_the_names_of_both_libraries_in_firing_order():
    found = listed(places(PackedModel(), WIDTH))
    names = [site.name for site in found]
    assert names[:3] == ["model.embed_tokens", "hook_embed", "blocks.0.hook_resid_pre"]
    assert names[-1] == "model.norm"
    by_name = {site.name: site for site in found}
    assert by_name["model.layers.1"].source == by_name["blocks.1.hook_resid_post"].source
    assert by_name["blocks.0.attn.hook_q"].axes == ("batch", "position", "head", "feature")
    assert by_name["blocks.0.attn.hook_k"].width == 4
    depths = [site.depth for site in found]
    assert depths == sorted(depths)
    assert "model.layers.0.self_attn.qkv_proj" not in names


def test_shares_of_several_workers_are_not_offered():
    whole = {p.name for p in places(PackedModel(), WIDTH)}
    shared = {p.name for p in places(PackedModel(), WIDTH, world=2)}
    assert {"model.layers.0", "blocks.1.hook_mlp_out", "blocks.0.hook_resid_mid"} <= shared
    assert {n.rpartition(".")[2] for n in whole - shared} == {
        "q_proj", "k_proj", "v_proj", "hook_q", "hook_k", "hook_v", "o_proj:in", "hook_z",
        "gate_proj", "up_proj", "down_proj:in", "hook_pre", "hook_pre_linear", "hook_post",
    }  # fmt: skip


def test_a_model_without_one_row_of_blocks_is_refused():
    two = PackedModel()
    two.vision = PackedModel()
    with pytest.raises(ModelError, match="several rows"):
        places(two, WIDTH)
    with pytest.raises(ModelError, match="no row of blocks"):
        places(torch.nn.Linear(2, 2), WIDTH)
    engine = PackedEngine(TEXTS)
    with pytest.raises(AttributeError):
        Reader(engine, engine.model, [Place("x", "no.such", "out", WIDTH)], Seen(), engine.context)
    assert not engine.model._forward_hooks
