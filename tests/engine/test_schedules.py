"""Chunks, decoding, preemption, samples of one prompt: what is counted never depends on them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import polycode_plugins as pc
from polycode_plugins.errors import DataError, ModelError, PluginError, SiteError
from polycode_plugins.metrics import Action, Metric, Spectrum

pytestmark = [pytest.mark.vllm]

SITE = "transformer.h.2"


def rows(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, 4000, (n,), generator=generator).tolist() for n in lengths]


def params(**settings: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(temperature=0.0, ignore_eos=True, **settings)


def prompts(tokens: list[list[int]]) -> list[dict[str, Any]]:
    return [{"prompt_token_ids": row} for row in tokens]


def expected(folder: Any, texts: list[list[int]], special: list[int]) -> dict[str, Any]:
    """The spectrum and the action of whole texts, by plain passes one by one."""
    import transformers
    from engine_truth import truth

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = [one[SITE] for one in truth(model, texts, [SITE])]
    longest = max(len(one) for one in found)
    values = torch.zeros(len(found), longest, found[0].shape[1])
    mask = torch.zeros(len(found), longest, dtype=torch.bool)
    for line, text, tokens, real in zip(values, found, texts, mask, strict=True):
        line[: len(text)] = text
        real[: len(text)] = ~torch.isin(torch.tensor(tokens), torch.tensor(special))
    return pc.measure({SITE: values}, METRICS, mask=mask)


METRICS = (Spectrum(), Action(projections=20))


def close(found: Any, wanted: Any) -> None:
    assert found.n_samples(SITE) == wanted.n_samples(SITE)
    for label, name in (("spectrum", "covariance"), ("action", "increments")):
        a, b = (one.statistics.accumulators(SITE, label)[name] for one in (found, wanted))
        x, y = a.eigenvalues(), b.eigenvalues()
        assert float((x - y).abs().max() / y.max()) < 2e-5
    a, b = (one.statistics.accumulators(SITE, "action")["increments"] for one in (found, wanted))
    assert (a.n_steps, a.n_paths) == (b.n_steps, b.n_paths)


def whole(tokens: list[list[int]], outputs: list[Any]) -> list[list[int]]:
    """Prompts with what was generated; the last token was drawn and never read."""
    return [row + list(o.outputs[0].token_ids)[:-1] for row, o in zip(tokens, outputs, strict=True)]


def test_prompts_and_generated_tokens_are_one_text_each(engine, folders):
    adapter = engine(folders("gpt2"))
    tokens = rows(60, 5, 90, 17, 3, 3, 40, 8)
    with pc.attach(adapter.engine, [SITE], METRICS) as probe:
        outputs = adapter.engine.generate(prompts(tokens), params(max_tokens=12), use_tqdm=False)
        inside = probe.compute()
    special = adapter.tokenizer.all_special_ids
    wanted = expected(folders("gpt2"), whole(tokens, outputs), special)
    close(inside, wanted)
    close(probe.compute(), wanted)
    assert probe.compute().run["engine"]["texts"] == len(tokens)
    # The same in one step for each prompt, in another order.
    order = list(reversed(tokens))
    with pc.attach(adapter.engine, [SITE], METRICS) as again:
        for row in order:
            adapter.engine.generate(prompts([row]), params(max_tokens=12), use_tqdm=False)
    close(again.compute(), wanted)


def test_texts_cut_into_pieces_have_every_token_once(engine, folders):
    adapter = engine(folders("gpt2"))
    tokens = rows(60, 5, 90, 17)
    cut = pc.load(adapter.engine, longest=16)
    with pc.attach(cut, [SITE], [Spectrum()]) as probe:
        outputs = adapter.engine.generate(prompts(tokens), params(max_tokens=40), use_tqdm=False)
    texts = whole(tokens, outputs)
    wanted = expected(folders("gpt2"), texts, adapter.tokenizer.all_special_ids)
    found = probe.compute()
    assert found.n_samples(SITE) == wanted.n_samples(SITE)
    a, b = (o.statistics.accumulators(SITE, "spectrum")["covariance"] for o in (found, wanted))
    assert float((a.covariance() - b.covariance()).abs().max() / b.covariance().max()) < 2e-5


def test_samples_of_one_prompt_are_one_document(engine, folders):
    adapter = engine(folders("gpt2"))
    documents: list[int] = []
    with adapter.capture(adapter.resolve([SITE], None), lambda _, a: documents.extend(a.documents)):
        adapter.engine.generate(prompts(rows(9, 9)), params(max_tokens=2, n=1), use_tqdm=False)
    assert len(set(map(int, documents))) == 2
    documents.clear()
    from vllm import SamplingParams

    several = SamplingParams(max_tokens=2, n=3, temperature=1.0, ignore_eos=True)
    with adapter.capture(adapter.resolve([SITE], None), lambda _, a: documents.extend(a.documents)):
        adapter.engine.generate(prompts(rows(9, 9)), several, use_tqdm=False)
    assert len(documents) == 6
    assert len(set(map(int, documents))) == 2


def test_what_the_engine_says_is_the_same_with_statistics_and_without(engine, folders):
    adapter = engine(folders("gpt2"))
    ask = prompts(rows(30, 20, 10)), params(max_tokens=8, logprobs=1)
    plain = adapter.engine.generate(*ask, use_tqdm=False)
    with pc.attach(adapter.engine, "**.hook_resid_post", ["spectrum"]):
        watched = adapter.engine.generate(*ask, use_tqdm=False)
    for a, b in zip(plain, watched, strict=True):
        assert a.outputs[0].token_ids == b.outputs[0].token_ids
        assert a.outputs[0].cumulative_logprob == b.outputs[0].cumulative_logprob


def test_the_conformance_kit_passes(engine, folders):
    from polycode_plugins.testing import AdapterCase, run

    adapter = engine(folders("gpt2"))
    tokens = torch.tensor(rows(*[12] * 7))

    def truth(batch):
        import transformers
        from engine_truth import truth as plain

        model = transformers.AutoModelForCausalLM.from_pretrained(
            folders("gpt2"), dtype=torch.float32
        ).eval()
        found = plain(model, batch.inputs.tolist(), ["transformer.h.1"])
        return {"transformer.h.1": torch.stack([one["transformer.h.1"] for one in found])}

    report = run(
        AdapterCase(
            make=lambda: adapter, data=tokens, truth=truth,
            sites=["blocks.0.hook_resid_post", "transformer.h.2.mlp"], tolerance=2e-5,
        )
    )  # fmt: skip
    assert report.ok, report
    assert report.count("passed") >= 15, report


# -- refusals --------------------------------------------------------------------------------------


def test_an_engine_whose_settings_would_make_numbers_wrong_is_refused(engine, folders):
    adapter = engine(folders("gpt2"))
    config = adapter.engine.llm_engine.vllm_config
    for owner, field, value, said in (
        (config.cache_config, "enable_prefix_caching", True, "enable_prefix_caching=False"),
        (config.model_config, "enforce_eager", False, "enforce_eager=True"),
        (config.parallel_config, "worker_extension_cls", "", "worker_extension_cls="),
        (config.parallel_config, "pipeline_parallel_size", 2, "pipeline_parallel_size=1"),
        (config, "speculative_config", object(), "speculative_config=None"),
    ):
        before = getattr(owner, field)
        object.__setattr__(owner, field, value)
        try:
            with pytest.raises(ModelError, match=said):
                pc.load(adapter.engine)
        finally:
            object.__setattr__(owner, field, before)
    for setting in ("enforce_eager", "enable_prefix_caching"):
        with pytest.raises(ModelError, match=setting):
            pc.load(f"vllm:{folders('gpt2')}", engine={setting: setting != "enforce_eager"})


def test_a_prefix_cache_that_was_not_seen_is_noticed_in_the_worker(engine, folders):
    """What the check of settings would miss: tokens that never pass through the model."""
    adapter = engine(folders("gpt2"))
    with pc.attach(adapter.engine, [SITE], ["spectrum"]) as probe:
        gathered = next(iter(adapter._worker._polycode_gathered.values()))
        gathered.reader.texts.ledger.new = lambda part, new=gathered.reader.texts.ledger.new: new(
            type(part)(part.request, part.first + 3, part.start, part.count)
        )
        adapter.engine.generate(prompts(rows(9)), params(max_tokens=1), use_tqdm=False)
    with pytest.raises(DataError, match="did not pass through the model"):
        probe.compute()


def test_requests_go_on_where_nothing_can_be_read(engine, folders):
    adapter = engine(folders("gpt2"))
    with pytest.raises(SiteError, match="hook_resid_posd"):
        pc.attach(adapter.engine, ["blocks.0.hook_resid_posd"]).__enter__()
    with pytest.raises(DataError, match="'given'"):
        pc.attach(adapter.engine, [SITE], mask=torch.ones(1, 2, dtype=torch.bool)).__enter__()
    with (
        pc.attach(adapter.engine, [SITE], ["spectrum"]) as probe,
        pytest.raises(SiteError, match="did not fire"),
    ):
        probe.compute()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in adapter.model.modules())


class Homemade(Spectrum):
    """No plugin: an engine's worker would not know it by name."""


def test_a_metric_that_workers_cannot_make_is_refused(engine, folders):
    adapter = engine(folders("gpt2"))
    homemade: Metric = Homemade(label="homemade")
    with pytest.raises(PluginError, match="install it as a plugin"):
        pc.attach(adapter.engine, [SITE], [homemade]).__enter__()
    with pytest.raises(DataError, match="evaluation mode"):
        pc.analyze(adapter, None, train_mode=True)


def test_tokens_that_are_computed_again_are_counted_once(engine, folders):
    # So few blocks of the cache that requests have to be put off in the middle of their texts.
    adapter = engine(folders("gpt2"), num_gpu_blocks_override=9, block_size=32)
    tokens = rows(40, 45, 50, 38, 42, 47)
    with pc.attach(adapter.engine, [SITE], METRICS) as probe:
        outputs = adapter.engine.generate(prompts(tokens), params(max_tokens=60), use_tqdm=False)
    found = probe.compute()
    assert found.run["engine"]["repeated"] > 0, "no request was put off, so nothing was tried"
    wanted = expected(folders("gpt2"), whole(tokens, outputs), adapter.tokenizer.all_special_ids)
    close(found, wanted)
