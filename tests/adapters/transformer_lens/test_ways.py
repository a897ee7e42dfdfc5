"""All ways in give the same numbers at every site, or refuse alike."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from capture_helpers import Mean
from lens_kinds import KINDS
from tiny_models import lens_copy, lens_model, tiny_tokenizer
from torch import Tensor

import polycode_plugins as pc
from polycode_plugins.errors import PolycodeError

VOCABULARY, ROWS, LENGTH = 300, 3, 7
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {"n_positions": 24}),
    "llama": ("LlamaForCausalLM", {"num_key_value_heads": 2}),
    "gemma2": ("Gemma2ForCausalLM", GROUPED),
    "gemma3": ("Gemma3ForCausalLM", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", GROUPED),
    "neox": ("GPTNeoXForCausalLM", {}),
}
CONFIGS = {
    "gpt2": "GPT2Config",
    "llama": "LlamaConfig",
    "gemma2": "Gemma2Config",
    "gemma3": "Gemma3TextConfig",
    "qwen3": "Qwen3Config",
    "neox": "GPTNeoXConfig",
}
# No token is special, so that all ways count the same rows without a mask.
TOKENS = torch.randint(5, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))


def made(name: str, folder: Path) -> Any:
    kind, more = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, CONFIGS[name])(**SIZES, **more)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return lens_model("bridge", folder)


def outcome(result: Any) -> Any:
    return result.n_samples, tuple(result.mean.tolist())


def attempt(read: Any) -> Any:
    try:
        return read()
    except PolycodeError:
        return "refused"


def same(a: Any, b: Any) -> bool:
    if "refused" in (a, b):
        return a == b
    return a[0] == b[0] and torch.allclose(torch.tensor(a[1]), torch.tensor(b[1]), atol=1e-6)


def all_by_attach(model: Any, sites: list[str], tokens: Tensor, **options: Any) -> dict[str, Any]:
    """{site: outcome}, of one pass for all of them."""
    found: dict[str, Any] = dict.fromkeys(sites, "refused")
    offered = {site.name for site in pc.load(model).sites()}  # the others are refused at once
    sites = [site for site in sites if site in offered]
    with pc.attach(model, sites, Mean()) as probe:
        model.run_with_hooks(tokens, **options)
    readable = [site for site in sites if site not in probe._capture.problems]
    for site in readable:
        found[site] = outcome(probe._statistics.compute(site, Mean()))
    if len(readable) < len(sites):
        with pytest.raises(PolycodeError):
            probe.compute()
    return found


def by_attach(model: Any, site: str, tokens: Tensor, **options: Any) -> Any:
    with pc.attach(model, site, Mean()) as probe:
        model.run_with_hooks(tokens, **options)
    return outcome(probe.compute()[site, "mean"])


def all_by_hook(model: Any, sites: list[str], tokens: Tensor, **options: Any) -> dict[str, Any]:
    """{site: outcome}, of one pass for all of them."""
    hooks = {site: Mean().as_hook() for site in sites}
    model.run_with_hooks(tokens, fwd_hooks=list(hooks.items()), **options)
    return {site: attempt(lambda site=site: of_hook(hooks[site], site)) for site in sites}


def of_hook(hook: Any, site: str) -> Any:
    found = hook.compute()
    assert list(found) == [site]
    return outcome(found[site])


def by_hook(model: Any, site: str, tokens: Tensor, **options: Any) -> Any:
    hook = Mean().as_hook()
    model.run_with_hooks(tokens, fwd_hooks=[(site, hook)], **options)
    return of_hook(hook, site)


def all_by_cache(cache: Any, known: dict[str, Any]) -> dict[str, Any]:
    """{site: outcome}: of what another way reads at once, and of each that it refuses alone."""
    readable = [site for site, value in known.items() if value != "refused"]
    measured = pc.measure(cache, Mean(), readable) if readable else {}
    found = {site: outcome(measured[site, "mean"]) for site in readable}
    others = [site for site in known if site not in found]
    return found | {site: attempt(lambda site=site: by_cache(cache, site)) for site in others}


def alike(ways: dict[str, dict[str, Any]]) -> None:
    """See that all ways give what the first does, at every site."""
    (name, known), *others = ways.items()
    for site, value in known.items():
        for way, found in others:
            assert same(value, found[site]), (site, name, value, way, found[site])


def by_cache(cache: Any, site: str) -> Any:
    return outcome(pc.measure(cache, Mean(), site)[site, "mean"])


@pytest.mark.skipif("bridge" not in KINDS, reason="no TransformerBridge")
@pytest.mark.filterwarnings("ignore:A forward hook edited:UserWarning")  # TransformerLens 3's own
@pytest.mark.parametrize("name", MODELS)
def test_every_site_of_a_bridge(name: str, tmp_path: Path) -> None:
    model = made(name, tmp_path)
    _, cache = model.run_with_cache(TOKENS)
    _, plain = model.run_with_cache(TOKENS, return_cache_object=False)
    sites = list(cache.keys())
    known = all_by_attach(model, sites, TOKENS)
    alike(
        {
            "attach": known,
            "as_hook": all_by_hook(model, sites, TOKENS),
            "measure": all_by_cache(cache, known),
            "a dict": all_by_cache(plain, known),
        }
    )
    # 4 heads of 8 at 3 rows of 7: no size is another's.
    assert {n for n, _ in (v for v in known.values() if v != "refused")} == {ROWS * LENGTH}
    read = [site for site, value in known.items() if value != "refused"]
    assert len(read) > len(sites) // 2
    assert {"blocks.0.hook_resid_post", "blocks.1.attn.hook_z"} <= set(read)
    analysis = pc.analyze(model, TOKENS, Mean(), read)
    alike({"attach": {s: known[s] for s in read}, "analyze": {
        s: outcome(analysis[s, "mean"]) for s in read
    }})  # fmt: skip
    _, single = model.run_with_cache(TOKENS[:1], remove_batch_dim=True)
    one = all_by_attach(model, sites, TOKENS[:1])
    alike(
        {
            "attach": one,
            "as_hook": all_by_hook(model, sites, TOKENS[:1], remove_batch_dim=True),
            "measure": all_by_cache(single, one),
        }
    )


@pytest.mark.skipif("bridge" not in KINDS, reason="no TransformerBridge")
@pytest.mark.skipif("hooked" in KINDS, reason="3.9's T5 does not run with transformers 5")
def test_a_translator_is_refused_by_every_way(tmp_path: Path) -> None:
    config = transformers.T5Config(
        d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=4, vocab_size=VOCABULARY,
        decoder_start_token_id=0,
    )  # fmt: skip
    transformers.T5ForConditionalGeneration(config).eval().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = lens_model("bridge", tmp_path)
    _, cache = model.run_with_cache(TOKENS, decoder_input=TOKENS)
    with pytest.raises(pc.ModelError, match="an encoder and a decoder"):
        pc.attach(model, "**", Mean()).__enter__()
    sites = list(cache.keys())
    none = dict.fromkeys(sites, "refused")
    assert set(all_by_cache(cache, none).values()) == {"refused"}
    assert set(all_by_hook(model, sites, TOKENS, decoder_input=TOKENS).values()) == {"refused"}
    plain = {name: value for name, value in cache.items() if "_blocks." in name}
    assert set(all_by_cache(plain, dict.fromkeys(plain, "refused")).values()) == {"refused"}


@pytest.mark.skipif("hooked" not in KINDS, reason="no HookedTransformer")
def test_every_site_of_a_hooked_transformer(gpt2_folder: Path) -> None:
    model = lens_copy("hooked", gpt2_folder)
    tokens = TOKENS % 290 + 5
    _, cache = model.run_with_cache(tokens)
    _, single = model.run_with_cache(tokens[:1], remove_batch_dim=True)
    sites = list(cache.keys())  # also those that fire three times in a pass
    known = all_by_attach(model, sites, tokens)
    alike(
        {
            "attach": known,
            "as_hook": all_by_hook(model, sites, tokens),
            "measure": all_by_cache(cache, known),
        }
    )
    assert {n for n, _ in (v for v in known.values() if v != "refused")} == {ROWS * LENGTH}
    one = all_by_attach(model, sites, tokens[:1])
    alike({"attach": one, "measure": all_by_cache(single, one)})
    normed = "blocks.1.ln1.hook_normalized"
    hook = Mean().as_hook()
    for _ in range(2):
        model.run_with_hooks(tokens, fwd_hooks=[(normed, hook)])
    assert hook.compute()[normed].n_samples == 2 * ROWS * LENGTH


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_that_stops_before_the_first_block(kind: str, gpt2_folder: Path) -> None:
    model = lens_copy(kind, gpt2_folder)
    tokens = TOKENS % 290 + 5
    known = by_attach(model, "hook_embed", tokens)
    with pc.attach(model, "hook_embed", Mean()) as probe:
        _, cache = model.run_with_cache(tokens, stop_at_layer=0)
        assert outcome(probe.compute()["hook_embed", "mean"])[0] == ROWS * LENGTH
    assert same(known, outcome(probe.compute()["hook_embed", "mean"]))
    assert same(known, by_cache(cache, "hook_embed"))
    assert same(known, by_hook(model, "hook_embed", tokens, stop_at_layer=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_warning_says_how_many_rows_are_padding_or_special(kind: str, gpt2_folder: Path) -> None:
    model = lens_copy(kind, gpt2_folder)
    tokens = TOKENS % 290 + 5
    begin = model.tokenizer.bos_token_id
    tokens[:, 0] = begin
    site = "blocks.1.hook_resid_post"
    _, cache = model.run_with_cache(tokens)
    hook = Mean().as_hook()
    model.run_with_hooks(tokens, fwd_hooks=[(site, hook)])
    match = "3 of the rows at 'blocks.1.hook_resid_post' are padding or special tokens"
    with pytest.warns(UserWarning, match=match):
        assert hook.compute()[site].n_samples == ROWS * LENGTH
    if "embed.hook_in" in cache:
        with pytest.warns(UserWarning, match=match):
            analysis = pc.measure(cache, Mean(), site)
        assert "3 of the rows are padding" in str(analysis.warnings[-1])
    mask = tokens != begin
    known = by_attach(model, site, tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(known, outcome(pc.measure(cache, Mean(), site, mask=mask)[site, "mean"]))
        masked = Mean().as_hook(mask=mask)
        model.run_with_hooks(tokens, fwd_hooks=[(site, masked)])
        assert same(known, outcome(masked.compute()[site]))


def test_names_that_were_asked_for(gpt2_folder: Path) -> None:
    model = lens_copy(KINDS[0], gpt2_folder)
    names = ["blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"]
    hook = Mean().as_hook()
    model.run_with_hooks(TOKENS, fwd_hooks=[(name, hook) for name in names])
    assert list(hook.compute()) == names
    hook = Mean().as_hook()
    model.run_with_hooks(TOKENS, fwd_hooks=[(lambda n: n.endswith("1.mlp.hook_post"), hook)])
    assert list(hook.compute()) == names[1:]
    inside = Mean().as_hook()
    with model.hooks(fwd_hooks=[(names[0], inside)]):
        model(TOKENS)
    assert inside.compute()[names[0]].n_samples == ROWS * LENGTH  # whatever its own name is
    with pytest.raises(KeyError):
        inside.compute()["blocks.1.hook_resid_post"]


def test_what_a_hook_cannot_read_is_said_after_the_users_pass(gpt2_folder: Path) -> None:
    model = lens_copy(KINDS[0], gpt2_folder)
    hook = Mean().as_hook()
    out = model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.attn.hook_pattern", hook)])
    assert out.shape[:2] == (ROWS, LENGTH)
    with pytest.raises(pc.DataError, match="attention weights"):
        hook.compute()
