"""The `nnsight` adapter: traces, edits and plain passes give the same activations."""

from __future__ import annotations

from typing import Any

import nnsight
import pytest
import torch
from capture_helpers import Mean, condition_of, hooks_on, streamed
from nnsight import NNsight, TransformersModel
from nnsight_models import BLOCKS, ROWS, TEXTS, Twice, expected_of
from tiny_models import (
    CONTEXT,
    LAYERS,
    WIDTH,
    hugging_face_model,
    lens_model,
    save_model,
    tiny_tokenizer,
)
from torch import Tensor

import polycode_plugins as pc
from polycode_plugins import loading
from polycode_plugins.adapters.base import DataOptions
from polycode_plugins.adapters.nnsight.adapter import NNsightAdapter


@pytest.fixture
def language() -> Any:
    return TransformersModel(hugging_face_model(), tokenizer=tiny_tokenizer())


# -- values ----------------------------------------------------------------------------------------


def test_activations_are_the_modules_outputs_before_operations_in_place(plain):
    expected = expected_of(plain)
    for model in (NNsight(plain), plain):  # live, or wrapped on the way
        got = streamed(NNsightAdapter(model), ROWS, list(expected))
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in got)


def test_what_a_trace_caches_is_overwritten_in_place(plain):
    """Why the adapter does not read the cache of a trace that runs here."""
    model = NNsight(plain)
    with model.trace(ROWS) as tracer:
        cache = tracer.cache(modules=["model.first", "model.nowhere"])
    assert torch.equal(cache["model.first"].output, expected_of(plain)["model.relu:0"])
    assert cache.keys() == ["model.first"]  # and it says nothing of the module that is not there


def test_unknown_and_silent_sites_are_errors(plain):
    adapter = NNsightAdapter(plain)
    with pytest.raises(pc.SiteError, match=r"did you mean 'model\.first'"):
        streamed(adapter, ROWS, "model.firts")
    with pytest.raises(pc.SiteError, match=r"no site .* 'first'; did you mean 'model\.first'"):
        streamed(adapter, ROWS, "first")
    with pytest.raises(pc.SiteError, match=r"'model\.unused' exists and did not fire"):
        streamed(adapter, ROWS, ["model.first", "model.unused"])
    with pytest.raises(pc.SiteError, match=r"called 2 times .* 'model\.relu:0'"):
        streamed(adapter, ROWS, "model.relu")


def test_shared_modules_answer_to_both_names(plain):
    got = streamed(NNsightAdapter(plain), ROWS, ["model.first", "model.again"])
    assert torch.equal(got["model.first"], got["model.again"])


def test_any_batch_size_gives_the_same_activations(plain):
    adapter = NNsightAdapter(plain)
    whole = streamed(adapter, ROWS, "model.last", batch_size=11)["model.last"]
    for size in (1, 4):
        parts = streamed(adapter, ROWS, "model.last", batch_size=size)["model.last"]
        assert torch.allclose(parts, whole, atol=1e-6)


def test_the_model_is_left_as_it_was(plain):
    model = NNsight(plain.train())
    plain.drop.eval()
    before = condition_of(plain)
    for train_mode in (False, True):
        pc.analyze(model, ROWS, Mean(), ["model.pair", "model.drop"], train_mode=train_mode)
        assert condition_of(plain) == before
    with pytest.raises(KeyboardInterrupt):
        interrupted(model)
    assert condition_of(plain) == before
    assert not model.interleaver.interleaving
    assert streamed(NNsightAdapter(model), ROWS, "model.pair")["model.pair"].shape == (11, 6)


def interrupted(model: NNsight) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = model._module.pair.register_forward_hook(stop)
    try:
        pc.analyze(model, ROWS, Mean(), "model.first")
    finally:
        handle.remove()


def test_the_pass_ends_after_the_last_site(plain):
    calls: list[int] = []
    handle = plain.last.register_forward_hook(lambda *_: calls.append(1))
    streamed(NNsightAdapter(plain), ROWS, "model.pair", batch_size=4)
    handle.remove()
    assert len(calls) == 1  # of the trace, before three batches


def test_registered_edits_are_in_force(plain):
    model = NNsight(plain)
    with model.edit(inplace=True):
        model.pair.output = (model.pair.output[0] * 0 + 1, None)
    got = streamed(NNsightAdapter(model), ROWS, ["model.pair", "model.relu:1"])
    assert torch.equal(got["model.pair"], torch.ones(11, 6))
    assert torch.equal(got["model.relu:1"], torch.ones(11, 6))
    assert pc.load(model).describe()["edits"] == 1


# -- attach ----------------------------------------------------------------------------------------


def test_traces_and_plain_passes_are_seen_alike(plain):
    model = NNsight(plain)
    expected = expected_of(plain)
    with torch.no_grad():
        out = plain(ROWS)
        with pc.attach(model, list(expected), Mean()) as probe:
            with model.trace(ROWS):
                saved = model.output.save()
            assert torch.equal(saved, out)
            assert torch.equal(plain(ROWS), out)
            assert torch.equal(model(ROWS), out)
    assert probe.n_samples == dict.fromkeys(probe.n_samples, 33)
    analysed = pc.analyze(model, ROWS, Mean(), list(expected))
    for name, values in expected.items():
        mean = values.double().mean(dim=0)
        assert torch.allclose(probe.compute()[name, "mean"].mean, mean, atol=1e-7)
        assert torch.allclose(analysed[name, "mean"].mean, mean, atol=1e-7)
    assert hooks_on(plain) == 0


def trace_with_a_lens(model: NNsight) -> tuple[Tensor, Tensor, Tensor]:
    with model.trace(ROWS):
        aside = model.last(ROWS).save()  # before the model runs
        hidden = model.first.output
        lens = model.last(hidden).save()  # and in the middle of it
        model.pair.output = (torch.full((11, 6), 2.0), None)
        out = model.output.save()
    return aside, lens, out


def test_interventions_are_seen_and_what_a_trace_computes_on_the_side_is_not(plain):
    model = NNsight(plain)
    with torch.no_grad(), pc.attach(model, ["model.pair", "model.last"], Mean()) as probe:
        aside, lens, out = trace_with_a_lens(model)
    assert aside.shape == lens.shape == (11, 2)
    assert probe.n_samples == {"model.pair": 11, "model.last": 11}
    means = probe.compute()
    assert torch.equal(means["model.pair", "mean"].mean, torch.full((6,), 2.0).double())
    assert torch.allclose(means["model.last", "mean"].mean, out.double().mean(dim=0))


def test_training_is_bit_equal_with_and_without():
    def trained(attached: bool) -> dict[str, Tensor]:
        model = NNsight(Twice().train())
        optimiser = torch.optim.SGD(model._module.parameters(), lr=0.1)
        torch.manual_seed(1)

        def steps() -> None:
            for part in ROWS.split(4):
                optimiser.zero_grad()
                with model.trace(part):
                    loss = model.output.square().mean().save()
                loss.backward()
                optimiser.step()

        if attached:
            with pc.attach(model, ["model.first", "model.relu:0"], Mean()) as probe:
                steps()
            assert probe.n_samples["model.first"] == 11
        else:
            steps()
        return model._module.state_dict()

    alone, watched = trained(False), trained(True)
    assert all(torch.equal(alone[k], watched[k]) for k in alone)
    assert not torch.equal(alone["first.weight"], Twice().first.weight)


def test_padding_and_special_tokens_are_left_out_of_generated_text(language):
    tokenizer = language.tokenizer
    with torch.no_grad(), pc.attach(language, BLOCKS[:1], Mean()) as probe:
        language.trace(["hello world", "a"], trace=False)
    lengths = [len(tokenizer(t)["input_ids"]) for t in ("hello world", "a")]
    assert lengths[0] != lengths[1]
    assert probe.n_samples == {BLOCKS[0]: sum(lengths)}
    tokens = torch.tensor([[tokenizer.eos_token_id, 5, 6], [7, 8, tokenizer.eos_token_id]])
    with torch.no_grad(), pc.attach(language, BLOCKS[:1], Mean()) as probe:
        language.trace(tokens, trace=False)
        language._module(tokens)
    assert probe.n_samples == {BLOCKS[0]: 8}
    with pc.attach(language, BLOCKS[:1], Mean()) as probe:
        out = language.generate("hello world", max_new_tokens=4, do_sample=False)
    # The last token is not read any more, and the end of text would not count.
    expected = ~torch.isin(out[:, :-1], torch.tensor(tokenizer.all_special_ids))
    assert probe.n_samples == {BLOCKS[0]: int(expected.sum())}


# -- language models -------------------------------------------------------------------------------


def test_the_same_windows_and_activations_as_transformer_lens(folder):
    lens = pc.load(lens_model("bridge", folder))
    adapter = pc.load(str(folder), "nnsight")
    options = DataOptions(context=8, batch_size=2)
    theirs, ours = list(lens.batches(TEXTS, options)), list(adapter.batches(TEXTS, options))
    for a, b in zip(theirs, ours, strict=True):
        assert torch.equal(a.inputs["input_ids"], b.inputs["input_ids"])
        assert torch.equal(a.mask, b.mask)
        assert torch.equal(a.rows, b.rows)
        assert torch.equal(a.documents, b.documents)
    got = streamed(adapter, TEXTS, BLOCKS, context=8)
    sites = [f"blocks.{i}.hook_resid_post" for i in range(LAYERS)]
    expected = streamed(lens, TEXTS, sites, context=8)
    for block, site in zip(BLOCKS, sites, strict=True):
        # Two implementations of attention may add in another order.
        assert torch.allclose(got[block], expected[site], atol=2e-5)
    with_special = streamed(adapter, TEXTS, BLOCKS[0], context=8, include_special=True)
    windows = sum(len(b) for b in ours)
    assert len(with_special[BLOCKS[0]]) == len(got[BLOCKS[0]]) + windows


def test_the_default_sites_are_the_blocks(folder):
    adapter = pc.load(str(folder), "nnsight")
    sites = adapter.resolve(None, adapter.example())
    assert [s.name for s in sites] == ["model.transformer.drop", *BLOCKS]
    assert {s.width for s in sites} == {WIDTH}
    assert adapter.example().inputs["input_ids"].shape == (2, CONTEXT)
    described = adapter.describe()
    assert described["name"] == str(folder)
    assert (described["remote"], described["edits"]) == (False, 0)
    assert described["nnsight"] == nnsight.__version__


def test_tokens_are_read_and_special_ones_left_out(language):
    adapter = pc.load(language)
    special = language.tokenizer.eos_token_id
    tokens = torch.tensor([[special, 5, 6, 7], [special, 8, 9, special]])
    got = streamed(adapter, tokens, BLOCKS[0])[BLOCKS[0]]
    assert got.shape == (5, WIDTH)
    with torch.no_grad():
        hidden = language._module(tokens, output_hidden_states=True).hidden_states[1]
    assert torch.allclose(got, hidden[tokens != special], atol=1e-6)
    for wrong in (torch.randn(2, 4), iter([{"pixels": tokens}])):
        with pytest.raises(pc.DataError, match="tokens"):
            list(adapter.batches(wrong, DataOptions()))


def test_texts_need_a_tokenizer():
    model = NNsight(hugging_face_model())
    with pytest.raises(pc.ModelError, match="no tokenizer"):
        pc.analyze(model, "texts.txt", Mean())
    assert pc.load(model).example() is None
    got = pc.analyze(model, TEXTS, Mean(), BLOCKS, tokenizer=tiny_tokenizer(), context=8)
    assert got[BLOCKS[0], "mean"].n_samples > 10


# -- what it takes ---------------------------------------------------------------------------------


def test_nnsights_objects_are_claimed_and_nothing_else(plain, language):
    for model in (NNsight(plain), language, language.transformer):
        assert NNsightAdapter.accepts(model)
        assert loading._natural_adapter(model) == "nnsight"
    for other in (plain, "gpt2", None):
        assert not NNsightAdapter.accepts(other)
    with pytest.warns(nnsight.NNsightDeprecationWarning):
        old = nnsight.LanguageModel(hugging_face_model(), tokenizer=tiny_tokenizer())
    assert isinstance(pc.load(old), NNsightAdapter)
    part = pc.load(language.transformer)
    assert part.sites()[0].name == "model.transformer.wte"


def test_what_does_not_load_says_why(tmp_path, plain):
    with pytest.raises(pc.ModelError, match="does not exist"):
        NNsightAdapter(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(pc.ModelError, match="no tokenizer"):
        NNsightAdapter(tmp_path)
    with pytest.raises(pc.ModelError, match="does not load"):
        NNsightAdapter("nobody/has-this-model")
    with pytest.raises(pc.ModelError, match="no nnsight model"):
        NNsightAdapter(3)
    with pytest.raises(pc.ModelError, match="given by name or folder"):
        NNsightAdapter(plain, device="cpu")
    with pytest.raises(pc.ModelError, match="unknown dtype"):
        NNsightAdapter(save_model(tmp_path), dtype="float7")
