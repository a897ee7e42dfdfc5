"""`pc.attach` on TransformerLens models: what it sees in any workflow, and that nothing changes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from capture_helpers import Mean, condition_of
from lens_kinds import KINDS
from tiny_models import (
    CONTEXT,
    LAYERS,
    SENTENCES,
    VOCABULARY,
    WIDTH,
    hugging_face_model,
    lens_copy,
    lens_model,
    save_model,
)
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.errors import ModelError, SiteError

EMBED, POST, MLP = "hook_embed", "blocks.1.hook_resid_post", "blocks.2.mlp.hook_post"
TOKENS = torch.arange(1, 1 + 3 * 7).reshape(3, 7)
PROMPT = torch.cat([torch.zeros(3, 1, dtype=torch.int64), TOKENS[:, :6]], dim=1)


def is_hooked(model: Any) -> bool:
    return not hasattr(model, "original_model")


def hooks_of(model: Any) -> dict[str, Any]:
    """All hooks: those of torch on every module, those of TransformerLens on every hook point."""
    roots = [r for r in (model, getattr(model, "original_model", None)) if r is not None]
    points = {id(p): p for p in model.hook_dict.values()}.values()
    return {
        "torch": [
            [list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)]
            for root in roots
            for m in root.modules()
        ],
        "lens": [
            [h.user_hook if hasattr(h, "user_hook") else h for h in p.fwd_hooks] for p in points
        ],
    }


def at(model: Any, tokens: Tensor, site: str, **options: Any) -> Tensor:
    """The activations [batch, position, feature] of one site, as TransformerLens caches them."""
    with torch.no_grad():
        return model.run_with_cache(tokens, names_filter=site, **options)[1][site]


def ablate(values: Tensor, hook: Any) -> Tensor:
    return torch.cat([torch.full_like(values[..., :1], 7.0), values[..., 1:]], dim=-1)


# -- every workflow --------------------------------------------------------------------------------


def run_texts(model: Any) -> Tensor:
    model.run_with_hooks(SENTENCES[0], fwd_hooks=[(MLP, lambda values, hook: None)])
    return model.to_tokens(SENTENCES[0])


def run_padded(model: Any) -> Tensor:
    model(SENTENCES)
    return model.to_tokens(SENTENCES)


def run_padded_at_the_left(model: Any) -> Tensor:
    model.tokenizer.padding_side = "left"
    return run_padded(model)


def run_positional(model: Any) -> Tensor:
    model(TOKENS)
    return TOKENS


def run_keyword(model: Any) -> Tensor:
    model(input=TOKENS, return_type="loss")
    return TOKENS


def run_cached(model: Any) -> Tensor:
    model.run_with_cache(TOKENS)
    return TOKENS


def run_stopped(model: Any) -> Tensor:
    model(TOKENS, stop_at_layer=3)
    return TOKENS


def run_backward(model: Any) -> Tensor:
    model(TOKENS, return_type="loss").backward()
    return TOKENS


def generate(model: Any) -> Tensor:
    if "hooked" in KINDS and len(KINDS) == 1:
        pytest.skip("TransformerLens 2 adds no positions to what it generates")
    out = model.generate(
        PROMPT, max_new_tokens=6, stop_at_eos=False, do_sample=False, verbose=False
    )
    return out[:, :-1]  # the last token is not read any more


def generate_without_a_cache(model: Any) -> Tensor:
    out = model.generate(
        PROMPT,
        max_new_tokens=3,
        stop_at_eos=False,
        do_sample=False,
        verbose=False,
        use_past_kv_cache=False,
    )
    return out


def run_wrapped(model: Any) -> Tensor:
    if is_hooked(model):
        pytest.skip("a HookedTransformer wraps no Hugging Face model")
    model.original_model(input_ids=TOKENS)
    return TOKENS


WORKFLOWS = [
    run_texts,
    run_padded,
    run_padded_at_the_left,
    run_positional,
    run_keyword,
    run_cached,
    run_stopped,
    run_backward,
    generate,
    run_wrapped,
]


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_workflow_is_seen_without_special_tokens(
    lens: Any, workflow: Callable[[Any], Tensor]
) -> None:
    # While a HookedTransformer generates, its 'hook_embed' does not fire.
    first = "hook_pos_embed" if workflow is generate else EMBED
    with pc.attach(lens, [first, POST, MLP], Mean()) as probe:
        tokens = workflow(lens)
    analysis = probe.compute()
    text = tokens != lens.tokenizer.bos_token_id  # which is the padding, too
    options: dict[str, Any] = {}
    if workflow is run_padded_at_the_left:
        attention = text.long()
        attention[torch.arange(len(text)), (~text).sum(dim=1) - 1] = 1  # the beginning of text
        options["attention_mask"] = attention
    for site in (first, POST, MLP):
        rows = at(lens, tokens, site, **options)[text]
        result = analysis[site, "mean"]
        assert result.n_samples == rows.shape[0]
        torch.testing.assert_close(result.mean, rows.double().mean(dim=0), rtol=1e-5, atol=1e-6)


def test_text_generated_without_a_cache_is_seen_as_often_as_it_is_read(lens: Any) -> None:
    with pc.attach(lens, POST, Mean()) as probe:
        out = generate_without_a_cache(lens)
    text = out != lens.tokenizer.bos_token_id
    reads = sum(int(text[:, :n].sum()) for n in (7, 8, 9))
    assert probe.n_samples == {POST: reads}


@pytest.mark.parametrize("call", ["__call__", "run_with_hooks", "run_with_cache"])
def test_an_attention_mask_is_known_before_the_embedding_counts(lens: Any, call: str) -> None:
    attention = torch.ones_like(TOKENS)
    attention[1, 4:] = 0  # padding that is no special token
    with pc.attach(lens, [EMBED, "hook_pos_embed", POST], Mean()) as probe:
        getattr(lens, call)(TOKENS, attention_mask=attention)
    assert probe.n_samples == {EMBED: 18, "hook_pos_embed": 18, POST: 18}
    expected = at(lens, TOKENS, EMBED, attention_mask=attention)[attention.bool()].double()
    torch.testing.assert_close(probe.compute()[EMBED, "mean"].mean, expected.mean(dim=0))


def test_without_a_tokenizer_every_position_counts(lens: Any) -> None:
    setattr(lens, "tokenizer" if is_hooked(lens) else "_tokenizer", None)
    with pc.attach(lens, POST, Mean()) as probe:
        lens(torch.zeros(2, 5, dtype=torch.int64))
    assert probe.n_samples == {POST: 10}


@pytest.mark.parametrize("side", ["left", "right"])
def test_special_tokens_count_where_they_are_asked_for(lens: Any, side: str) -> None:
    lens.tokenizer.padding_side = side
    lengths = [len(lens.to_tokens(text)[0]) for text in SENTENCES]
    assert len(set(lengths)) > 1
    with pc.attach(lens, [EMBED, POST], Mean(), include_special=True) as probe:
        lens(SENTENCES)
    assert probe.n_samples == {EMBED: sum(lengths), POST: sum(lengths)}


def test_a_pass_that_starts_in_the_middle_counts_every_position(lens: Any) -> None:
    tokens = TOKENS.clone()
    tokens[:, 0] = lens.tokenizer.bos_token_id
    residual = at(lens, tokens, "blocks.1.hook_resid_pre")
    with pc.attach(lens, MLP, Mean()) as probe:
        lens(tokens)  # its mask must not be used again
        assert probe.n_samples == {MLP: 18}
        try:
            lens(residual[:, :5], start_at_layer=1)
        except NotImplementedError:
            pytest.skip("a bridge of TransformerLens 3 starts with the first block only")
        assert probe.n_samples == {MLP: 18 + 15}


# -- others' hooks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("added", ["before", "after", "for one run"])
def test_what_is_seen_is_what_the_model_goes_on_with(lens: Any, added: str) -> None:
    if added == "before":
        lens.add_hook(POST, ablate)
    with pc.attach(lens, [POST, "blocks.2.hook_resid_pre"], Mean()) as probe:
        if added == "after":
            lens.add_hook(POST, ablate)
        lens.run_with_hooks(TOKENS, fwd_hooks=[(POST, ablate)] if added == "for one run" else [])
    mean = probe.compute()[POST, "mean"].mean
    assert mean[0] == 7
    assert torch.equal(mean, probe.compute()["blocks.2.hook_resid_pre", "mean"].mean)


def test_results_are_keyed_by_the_names_asked_for(lens: Any) -> None:
    names = [MLP] if is_hooked(lens) else [MLP, "blocks.2.mlp.out.hook_in"]
    with pc.attach(lens, names, Mean()) as probe:
        lens(TOKENS)
    assert list(probe.compute()) == sorted(names, key=names.index)
    with pc.attach(lens, "blocks.*.hook_resid_post", Mean()) as probe:
        lens(TOKENS)
    assert list(probe.compute()) == [f"blocks.{i}.hook_resid_post" for i in range(LAYERS)]


def test_attached_twice(lens: Any) -> None:
    with pc.attach(lens, POST, Mean()) as outer:
        lens(TOKENS)
        with pc.attach(lens, POST, Mean()) as inner:
            lens(TOKENS)
        lens(TOKENS)
    assert (outer.n_samples[POST], inner.n_samples[POST]) == (63, 21)


@pytest.mark.parametrize("reset", [{}, {"including_permanent": True}])
def test_no_reset_of_hooks_ends_it(lens: Any, reset: dict[str, bool]) -> None:
    with pc.attach(lens, [EMBED, POST], Mean()) as probe:
        for _ in range(3):
            lens.run_with_hooks(TOKENS, fwd_hooks=[(POST, ablate)])
            lens.reset_hooks(**reset)
    assert probe.n_samples == {EMBED: 63, POST: 63}
    assert not [point for point in lens.hook_dict.values() if point.fwd_hooks]


def test_no_reset_of_hooks_ends_it_where_a_hook_point_without_hooks_is_left_out(
    tmp_path: Path,
) -> None:
    lens = lens_model("bridge", save_model(tmp_path, "granite"))
    site = "blocks.1.hook_attn_out"
    plain = lens(TOKENS)
    with pc.attach(lens, site, Mean()) as probe:
        for _ in range(2):
            assert torch.equal(lens(TOKENS), plain)
            lens.reset_hooks(including_permanent=True)
    assert probe.n_samples == {site: 42}
    rows = at(lens, TOKENS, site).double().reshape(-1, WIDTH)
    torch.testing.assert_close(probe.compute()[site, "mean"].mean, rows.mean(dim=0))


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_nothing_is_left_behind(lens: Any, ending: type[BaseException] | None) -> None:
    seen: list[str] = []
    lens(TOKENS)  # in its first pass a bridge hangs hooks of its own on itself
    lens.add_perma_hook(POST, lambda values, hook: seen.append("permanent"))
    lens.add_hook(POST, lambda values, hook: seen.append("plain"))
    before = hooks_of(lens)

    def fail(values: Tensor, hook: Any) -> None:
        if ending is not None:
            raise ending

    with pc.attach(lens, [EMBED, POST, MLP], Mean()):
        lens(TOKENS)
        if ending is not None:
            with pytest.raises(ending):
                lens.run_with_hooks(TOKENS, fwd_hooks=[(POST, fail)])
    if ending is not None:
        with pytest.raises(ending), pc.attach(lens, [EMBED, POST, MLP], Mean()):
            raise ending
    assert hooks_of(lens) == before
    seen.clear()
    lens(TOKENS)
    assert seen == ["permanent", "plain"]


def test_a_pass_after_one_that_failed_is_counted_right(lens: Any) -> None:
    def fail(values: Tensor, hook: Any) -> None:
        raise ValueError("nonsense")

    with pc.attach(lens, [EMBED, MLP], Mean()) as probe:
        with pytest.raises(ValueError, match="nonsense"):
            lens.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.hook_resid_pre", fail)])
        lens(SENTENCES)
    text = int((lens.to_tokens(SENTENCES) != lens.tokenizer.bos_token_id).sum())
    # The embedding did fire in the pass that failed.
    assert probe.n_samples == {EMBED: 21 + text, MLP: text}


def test_a_site_that_did_not_fire_is_an_error(lens: Any) -> None:
    with pc.attach(lens, [POST, MLP], Mean()) as probe:
        lens(TOKENS, stop_at_layer=2)
    with pytest.raises(SiteError, match=r"'blocks\.2\.mlp\.hook_post' did not fire"):
        probe.compute()


def test_options_of_loading_are_refused_for_a_live_model(lens: Any) -> None:
    with pytest.raises(ModelError, match="live already"), pc.attach(lens, dtype="bfloat16"):
        pass


# -- nothing changes -------------------------------------------------------------------------------


def test_outputs_are_bit_equal(lens: Any) -> None:
    plain = lens(TOKENS)
    texts = lens(SENTENCES)
    before = condition_of(lens)
    with pc.attach(lens, "**", Mean()) if is_hooked(lens) else pc.attach(lens, None, Mean()):
        assert torch.equal(lens(TOKENS), plain)
        assert torch.equal(lens(SENTENCES), texts)
        assert lens(TOKENS).requires_grad
    assert condition_of(lens) == before


def trained(model: Any, sites: list[str] | None) -> tuple[list[float], dict[str, Tensor]]:
    model.train()
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []

    def steps() -> None:
        for _ in range(4):
            tokens = torch.randint(VOCABULARY, (3, CONTEXT))
            loss = model(tokens, return_type="loss")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    if sites is None:
        steps()
    else:
        with pc.attach(model, sites, Mean()) as probe:
            steps()
        assert all(0 < n <= 4 * 3 * CONTEXT for n in probe.n_samples.values())
    return losses, {name: p.detach().clone() for name, p in model.named_parameters()}


def test_training_is_bit_equal(gpt2_folder: Path) -> None:
    for kind in KINDS:
        sites = [EMBED, POST, MLP, "blocks.0.ln1.hook_normalized", "ln_final.hook_normalized"]
        losses, weights = trained(lens_copy(kind, gpt2_folder), None)
        with_us, weights_with_us = trained(lens_copy(kind, gpt2_folder), sites)
        assert losses == with_us
        assert losses[0] != losses[-1]
        assert weights.keys() == weights_with_us.keys()
        assert all(torch.equal(weights[name], weights_with_us[name]) for name in weights)


def test_what_checkpointing_computes_again_counts_once(gpt2_folder: Path) -> None:
    lens = lens_copy("bridge", gpt2_folder).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newest transformers call it by another name
        lens.original_model.gradient_checkpointing_enable({"use_reentrant": False})
    again = nn.Parameter(torch.zeros(1))
    lens.add_hook(MLP, lambda values, hook: values + again)
    passes: list[int] = []
    lens.blocks[2].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    with pc.attach(lens, [MLP, POST], Mean()) as probe:
        loss = lens(TOKENS, return_type="loss") + lens(TOKENS + 21, return_type="loss")
        assert len(passes) == 2
        loss.backward()
    assert len(passes) == 4  # both were computed again
    assert probe.n_samples == {MLP: 42, POST: 42}


def test_the_neurons_of_a_gated_mlp_are_the_inputs_of_its_last_map(tmp_path):
    folder = save_model(tmp_path / "llama", "llama")
    bridge = lens_model("bridge", folder)
    tokens = torch.randint(0, 300, (3, 7), generator=torch.Generator().manual_seed(5))
    point, site = "blocks.1.mlp.hook_post", "model.layers.1.mlp.down_proj:in"
    with pc.attach(bridge, point, Mean(), mask=None) as lens, torch.no_grad():
        bridge(tokens)
    model = hugging_face_model("llama")
    with pc.attach(model, site, Mean()) as plain, torch.no_grad():
        model(tokens)
    means = lens.compute()[point, "mean"], plain.compute()[site, "mean"]
    assert [m.n_samples for m in means] == [21, 21]
    torch.testing.assert_close(means[0].mean, means[1].mean, rtol=1e-4, atol=1e-6)
