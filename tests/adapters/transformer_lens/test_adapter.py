"""The `transformer-lens` adapter on both kinds of model: its sites, and what it captures there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from capture_helpers import Mean, condition_of, streamed
from lens_passes import BLOCKS, TOKENS, cached, first
from tiny_models import (
    CONTEXT,
    HEADS,
    LAYERS,
    SENTENCES,
    VOCABULARY,
    WIDTH,
    lens_copy,
    lens_model,
    save_model,
)
from torch import Tensor

import polycode_plugins as pc
from polycode_plugins.adapters.base import Batch, DataOptions
from polycode_plugins.adapters.transformer_lens.adapter import TransformerLensAdapter
from polycode_plugins.errors import DataError, ModelError, SiteError

ARCHITECTURES = ("llama", "neox", "gemma", "granite")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def bridge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lens_model("bridge", save_model(tmp_path_factory.mktemp("model"), request.param))


def is_hooked(model: Any) -> bool:
    return not hasattr(model, "original_model")


def firing_order(model: Any, tokens: Tensor) -> list[str]:
    """The own names of the hook points that hold floating-point tensors, as they first fire."""
    fired: list[str] = []

    def note(values: Any, hook: Any) -> None:
        if isinstance(values, Tensor) and values.is_floating_point() and hook.name not in fired:
            fired.append(hook.name)

    points = {id(point): point for point in model.hook_dict.values()}.values()
    for point in points:
        point.add_hook(note)
    with torch.no_grad():
        model(tokens)
    model.reset_hooks()
    return [n for n in fired if not n.endswith(("pattern", "attn_scores", "hook_cos", "hook_sin"))]


# -- sites -----------------------------------------------------------------------------------------


def test_sites_are_listed_in_the_order_they_fire(lens: Any) -> None:
    truth = firing_order(lens, TOKENS)
    adapter = TransformerLensAdapter(lens)
    traced = list(dict.fromkeys(s.source for s in adapter.sites(adapter.example())))
    assert traced == truth
    # Without a trace there are hook points that may fire and do not; the others are in order.
    usual = list(dict.fromkeys(s.source for s in adapter.sites()))
    assert [s for s in usual if s in truth] == truth


def test_sites_of_other_architectures_are_listed_in_the_order_they_fire(bridge: Any) -> None:
    truth = firing_order(bridge, TOKENS)
    adapter = TransformerLensAdapter(bridge)
    assert list(dict.fromkeys(s.source for s in adapter.sites(adapter.example()))) == truth
    usual = list(dict.fromkeys(s.source for s in adapter.sites()))
    assert [s for s in usual if s in truth] == truth
    assert adapter.default_sites(adapter.sites()) == BLOCKS


def test_a_trace_tells_axes_and_width(lens: Any) -> None:
    adapter = TransformerLensAdapter(lens)
    sites = {s.name: s for s in adapter.sites(adapter.example())}
    heads = sites["blocks.1.attn.hook_z"]
    assert (heads.axes, heads.width) == (("batch", "position", "head", "feature"), WIDTH)
    assert sites["blocks.1.mlp.hook_post"].width == 4 * WIDTH
    assert sites["blocks.3.hook_resid_post"].axes == ("batch", "position", "feature")


def test_default_sites_are_the_residual_stream(lens: Any) -> None:
    adapter = TransformerLensAdapter(lens)
    assert [s.name for s in adapter.resolve(None, None)] == BLOCKS
    assert list(first(adapter, TOKENS)) == BLOCKS


def test_sites_are_keyed_by_the_name_asked_for(lens: Any) -> None:
    names = ["blocks.0.mlp.hook_post"]
    if not is_hooked(lens):
        names.append("blocks.0.mlp.out.hook_in")
    got = first(TransformerLensAdapter(lens), TOKENS, names)
    assert sorted(got) == sorted(names)
    for name in names:
        assert torch.equal(got[name].values, got[names[0]].values)


def test_a_glob_finds_each_tensor_once(lens: Any) -> None:
    adapter = TransformerLensAdapter(lens)
    found = adapter.resolve("blocks.0.**", adapter.example())
    sources = [site.source for site in found]
    assert len(sources) == len(set(sources))
    assert "blocks.0.hook_resid_post" in [site.name for site in found]


@pytest.mark.parametrize(
    ("site", "switch"),
    [
        ("blocks.1.attn.hook_result", "use_attn_result"),
        ("blocks.1.hook_q_input", "use_split_qkv_input"),
        ("blocks.1.hook_mlp_in", "use_hook_mlp_in"),
        ("blocks.1.hook_attn_in", "use_attn_in"),
    ],
)
def test_a_hook_point_that_is_switched_off_names_its_switch(
    lens: Any, site: str, switch: str
) -> None:
    adapter = TransformerLensAdapter(lens)
    for pattern in (site, site.replace("1", "*")):
        with pytest.raises(SiteError, match=rf"set_{switch}\(True\)"):
            adapter.resolve(pattern, None)
    getattr(lens, f"set_{switch}")(True)
    tokens = TOKENS[:, :4]
    got = first(adapter, tokens, site)[site]
    assert torch.equal(got.values, cached(lens, tokens)[site])


@pytest.mark.parametrize("name", ["hook_pattern", "hook_attn_scores"])
def test_attention_weights_are_no_units(lens: Any, name: str) -> None:
    adapter = TransformerLensAdapter(lens)
    assert not [s for s in adapter.sites() if s.name.endswith(name)]
    for pattern in (f"blocks.0.attn.{name}", f"blocks.*.attn.{name}"):
        with pytest.raises(SiteError, match="attention weights"):
            adapter.resolve(pattern, adapter.example())


def test_what_is_no_site_says_why(lens: Any) -> None:
    adapter = TransformerLensAdapter(lens)
    with pytest.raises(SiteError, match=r"did you mean 'blocks\.0\.hook_resid_post'"):
        adapter.resolve("blocks.0.hook_resid_pst", None)
    if not is_hooked(lens):
        with pytest.raises(SiteError, match="int64 values"):
            adapter.resolve("embed.hook_in", adapter.example())
        with pytest.raises(SiteError, match="exists and did not fire"):
            adapter.resolve("blocks.0.attn.qkv.hook_in", adapter.example())


# -- values ----------------------------------------------------------------------------------------


def test_values_are_those_of_run_with_cache(lens: Any) -> None:
    adapter = TransformerLensAdapter(lens)
    names = [site.name for site in adapter.sites(adapter.example())]
    cache = cached(lens, TOKENS, names_filter=names)
    got = first(adapter, TOKENS, names)
    assert sorted(got) == sorted(cache)
    for name, activations in got.items():
        assert torch.equal(activations.values, cache[name]), name
    assert got["blocks.0.attn.hook_q"].values.shape == (*TOKENS.shape, HEADS, WIDTH // HEADS)


def test_values_of_other_architectures_are_those_of_run_with_cache(bridge: Any) -> None:
    adapter = TransformerLensAdapter(bridge)
    names = [site.name for site in adapter.sites(adapter.example())]
    cache = cached(bridge, TOKENS, names_filter=names)
    got = first(adapter, TOKENS, names)
    assert {n for n in names if not torch.equal(got[n].values, cache[n])} == set()


def test_a_layer_norm_that_runs_three_times_counts_once(lens: Any) -> None:
    site = "blocks.1.ln1.hook_normalized"
    rows = streamed(TransformerLensAdapter(lens), TOKENS, site)[site]
    assert torch.equal(rows, cached(lens, TOKENS)[site].reshape(-1, WIDTH))
    with pc.attach(lens, site, Mean()) as probe:
        lens(TOKENS)
    assert probe.n_samples == {site: TOKENS.numel()}


def test_a_block_that_runs_twice_is_refused(lens: Any) -> None:
    blocks = lens.blocks if is_hooked(lens) else lens.original_model.transformer.h
    blocks[2] = blocks[1]
    adapter = TransformerLensAdapter(lens)
    assert adapter.resolve("blocks.0.hook_resid_post", adapter.example())
    with pytest.raises(SiteError, match="more than once in a forward pass"):
        adapter.resolve("blocks.1.hook_resid_post", adapter.example())
    with pc.attach(lens, "blocks.1.hook_resid_post", Mean()) as probe:
        lens(TOKENS, **({} if is_hooked(lens) else {"use_cache": False}))
    with pytest.raises(SiteError, match="more than once in a forward pass"):
        probe.compute()


@pytest.mark.parametrize(
    ("site", "attentions", "mlps"),
    [
        ("hook_embed", 0, 0),
        ("hook_pos_embed", 0, 0),
        ("blocks.2.hook_resid_pre", 2, 2),
        ("blocks.2.hook_resid_mid", 3, 2),
        ("blocks.2.mlp.hook_post", 3, 3),
        ("blocks.2.hook_resid_post", 3, 3),
        ("ln_final.hook_normalized", LAYERS, LAYERS),
        ("unembed.hook_out", LAYERS, LAYERS),
    ],
)
def test_nothing_after_the_last_site_runs(lens: Any, site: str, attentions: int, mlps: int) -> None:
    if site not in lens.hook_dict:
        pytest.skip(f"this TransformerLens has no {site}")
    adapter = TransformerLensAdapter(lens)
    sites = adapter.resolve(["hook_embed", site], None)
    begun = {"attn": 0, "mlp": 0, "unembed": 0}

    def count(kind: str) -> Any:
        return lambda *_: begun.update({kind: begun[kind] + 1})

    for block in lens.blocks:
        block.attn.register_forward_pre_hook(count("attn"))
        block.mlp.register_forward_pre_hook(count("mlp"))
    lens.unembed.register_forward_pre_hook(count("unembed"))
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        batch = Batch(TOKENS, rows=torch.arange(3))
        adapter.run(batch, sites, lambda name, a: seen.update({name: a.values.clone()}))
    assert begun == {"attn": attentions, "mlp": mlps, "unembed": int(site == "unembed.hook_out")}
    cache = cached(lens, TOKENS)
    assert {n: torch.equal(v, cache[n]) for n, v in seen.items()} == dict.fromkeys(seen, True)
    assert set(seen) == {"hook_embed", site}


def test_a_pass_that_was_left_early_leaves_the_model_as_it_was(lens: Any) -> None:
    before = lens(TOKENS).clone()
    first(TransformerLensAdapter(lens), TOKENS, "blocks.1.hook_resid_mid")
    assert torch.equal(lens(TOKENS), before)
    assert len(cached(lens, TOKENS)) == len(lens.run_with_cache(TOKENS)[1])


# -- what counts -----------------------------------------------------------------------------------


def test_padding_and_special_tokens_of_texts_do_not_count(lens: Any) -> None:
    adapter = TransformerLensAdapter(lens)
    ids = [lens.tokenizer(t, add_special_tokens=False)["input_ids"] for t in SENTENCES]
    bos = lens.tokenizer.bos_token_id
    rows = [torch.tensor([[bos, *row]]) for row in ids]
    site = "blocks.1.hook_resid_post"
    expected = torch.cat([cached(lens, row)[site][0, 1:] for row in rows])
    got = streamed(adapter, SENTENCES, site, context=12)[site]
    torch.testing.assert_close(got, expected)
    with_special = streamed(adapter, SENTENCES, site, context=12, include_special=True)[site]
    torch.testing.assert_close(with_special, torch.cat([cached(lens, r)[site][0] for r in rows]))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("include_special", [False, True])
def test_padding_of_tokens_does_not_count(lens: Any, side: str, include_special: bool) -> None:
    lens.tokenizer.padding_side = side
    tokens = lens.to_tokens(SENTENCES)
    padding = (tokens == lens.tokenizer.pad_token_id).sum(dim=1) - 1  # the other is the beginning
    assert int(padding.max()) > 0
    adapter = TransformerLensAdapter(lens)
    batch = next(iter(adapter.batches(tokens, DataOptions(include_special=include_special))))
    assert batch.mask is not None
    text = tokens != lens.tokenizer.pad_token_id
    counts = text.sum(dim=1) + include_special
    assert torch.equal(batch.mask.sum(dim=1), counts)
    assert bool(batch.mask[text].all())
    attention = torch.ones_like(tokens)
    attention[1, :3] = 0
    with_mask = next(
        iter(adapter.batches([{"input_ids": tokens, "attention_mask": attention}], DataOptions()))
    )
    assert with_mask.mask is not None
    assert not bool(with_mask.mask[1, :3].any())


def test_without_a_tokenizer_tokens_all_count_and_texts_are_refused(lens: Any) -> None:
    if is_hooked(lens):
        lens.tokenizer = None
    else:
        lens._tokenizer = None
    adapter = TransformerLensAdapter(lens)
    site = BLOCKS[0]
    assert streamed(adapter, torch.zeros(2, 5, dtype=torch.int64), site)[site].shape == (10, WIDTH)
    with pytest.raises(ModelError, match="no tokenizer"):
        next(iter(adapter.batches(["a text"], DataOptions())))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.full((2, 5), VOCABULARY), f"this model knows 0 to {VOCABULARY - 1}"),
        (torch.ones(2, CONTEXT + 1, dtype=torch.int64), f"reads {CONTEXT} positions"),
        ([{"tokens": torch.ones(2, 5, dtype=torch.int64)}], "input_ids"),
        (torch.ones(2, 5), "tokens must be integers"),
    ],
)
def test_tokens_the_model_cannot_read_are_refused(lens: Any, data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        first(TransformerLensAdapter(lens), data)


def test_batches_with_labels_are_read_and_with_the_unknown_refused(lens: Any) -> None:
    item = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS), "labels": TOKENS}
    plain = streamed(TransformerLensAdapter(lens), TOKENS, BLOCKS[1])
    assert torch.equal(
        streamed(TransformerLensAdapter(lens), [item], BLOCKS[1])[BLOCKS[1]], plain[BLOCKS[1]]
    )
    if is_hooked(lens):  # a bridge hands on whatever the Hugging Face model may know
        with pytest.raises(
            DataError, match="'position_ids', which HookedTransformer does not read"
        ):
            first(TransformerLensAdapter(lens), [item | {"position_ids": TOKENS}])


# -- the model's condition -------------------------------------------------------------------------


def both(model: Any) -> dict[str, Any]:
    """The condition of a model and of the Hugging Face model inside a bridge."""
    inner = getattr(model, "original_model", None)
    return {"outer": condition_of(model), "inner": condition_of(inner) if inner else None}


def test_the_model_is_left_as_it_was(lens: Any) -> None:
    lens.train()
    lens.blocks[1].eval()
    lens.requires_grad_(False)
    next(iter(lens.parameters())).requires_grad_(True)
    lens(TOKENS)  # in its first pass a bridge hangs hooks of its own on itself
    before = both(lens)
    pc.analyze(lens, TOKENS, Mean(), [BLOCKS[1], "ln_final.hook_normalized"])
    assert both(lens) == before


def test_dropout_is_off_unless_train_mode_is_asked_for(gpt2_folder: Path) -> None:
    lens = lens_copy("bridge", gpt2_folder)
    adapter = TransformerLensAdapter(lens)
    quiet = streamed(adapter, TOKENS, BLOCKS)
    lens.train()
    assert not torch.equal(lens(TOKENS), lens(TOKENS))
    for site, values in streamed(adapter, TOKENS, BLOCKS).items():
        assert torch.equal(values, quiet[site])
    dropped = streamed(adapter, TOKENS, BLOCKS, train_mode=True)
    assert not torch.equal(dropped[BLOCKS[0]], quiet[BLOCKS[0]])
    again = streamed(adapter, TOKENS, BLOCKS, train_mode=True)
    assert torch.equal(dropped[BLOCKS[3]], again[BLOCKS[3]])


def test_bfloat16(lens: Any) -> None:
    lens.to(torch.bfloat16)
    adapter = TransformerLensAdapter(lens)
    assert adapter.describe()["dtype"] == "bfloat16"
    site = "blocks.1.attn.hook_z"
    got = first(adapter, TOKENS, site)[site]
    assert got.values.dtype == torch.bfloat16
    assert torch.equal(got.values, cached(lens, TOKENS)[site])
    mean = pc.analyze(lens, TOKENS, Mean(), site)[site, "mean"].mean
    torch.testing.assert_close(mean, got.values.double().reshape(-1, WIDTH).mean(dim=0))


def test_the_compatibility_mode_is_recorded(gpt2_folder: Path) -> None:
    sites = ["blocks.1.hook_resid_post", "blocks.1.mlp.hook_post"]
    plain = lens_copy("bridge", gpt2_folder)
    folded = lens_copy("bridge", gpt2_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folded.enable_compatibility_mode()
    adapters = TransformerLensAdapter(plain), TransformerLensAdapter(folded)
    assert [a.describe()["compatibility_mode"] for a in adapters] == [False, True]
    one, other = (streamed(a, TOKENS, sites) for a in adapters)
    assert not torch.allclose(one[sites[0]], other[sites[0]], atol=1e-2)
    torch.testing.assert_close(one[sites[1]], other[sites[1]])


def test_describe(lens: Any) -> None:
    described = TransformerLensAdapter(lens).describe()
    assert described["layers"] == LAYERS
    assert described["width"] == WIDTH
    assert described["normalization"] == "LN"
    assert described["compatibility_mode"] is False
    assert described["transformer_lens"].split(".")[0] in ("2", "3", "4")


# -- three ways to one number ----------------------------------------------------------------------


def unnamed(result: Any) -> dict[str, Any]:
    """A spectrum as JSON without what rows are called: a cache does not hold their tokens."""
    fields = result.to_dict()
    for row in (fields["first_direction"] or {}).get("rows", ()):
        for name in ("token", "text", "document"):
            row.pop(name)
    return fields


def test_analyze_attach_and_measure_agree(lens: Any) -> None:
    sites = ["blocks.1.hook_resid_post", "blocks.2.attn.hook_z", "blocks.0.mlp.hook_post"]
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, VOCABULARY, (40, 20), generator=generator)
    tokens[:, 0] = lens.tokenizer.bos_token_id
    tokens[3, 12:] = lens.tokenizer.pad_token_id
    metrics = [Mean(), pc.metrics.Spectrum(ranks=(2, 20))]
    analyzed = pc.analyze(lens, tokens, metrics, sites, batch_size=40)
    with torch.no_grad(), pc.attach(lens, sites, metrics) as probe:
        lens(tokens)
    attached = probe.compute()
    cache = cached(lens, tokens, names_filter=sites)
    mask = tokens != lens.tokenizer.pad_token_id
    measured = pc.measure({s: cache[s] for s in sites}, metrics, mask=mask)
    for site in sites:
        for other in (attached, measured):
            assert torch.equal(analyzed[site, "mean"].mean, other[site, "mean"].mean)
            assert analyzed[site, "mean"].n_samples == other[site, "mean"].n_samples == 40 * 19 - 8
            assert unnamed(analyzed[site, "spectrum"]) == unnamed(other[site, "spectrum"])
