"""Which rows are of one document: through caches, beams, packing and early ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from capture_helpers import Mean
from torch import Tensor

import polycode_plugins as pc
from polycode_plugins.activations import Activations
from polycode_plugins.adapters.evidence.documents import UNKNOWN, Documents

SITE = "model.layers.0"
IDS = torch.randint(25, 60, (4, 5), generator=torch.Generator().manual_seed(3))
MASK = torch.ones_like(IDS)
MASK[0, :2] = 0  # padding on the left
STEPS = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}


@pytest.fixture
def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return transformers.LlamaForCausalLM(config).eval()


def seen(model: Any, run: Any) -> tuple[list[Activations], pc.Probe]:
    kept: list[Activations] = []
    with pc.attach(model, SITE, Mean()) as probe, torch.no_grad():
        sink = probe._capture.sink

        def keep(name: str, activations: Activations) -> None:
            kept.append(activations.clone())
            sink(name, activations)

        probe._capture.sink = keep
        run()
    return kept, probe


def documents(model: Any, run: Any) -> list[list[int]]:
    kept, probe = seen(model, run)
    probe.compute()
    assert all(a.documents is not None for a in kept)
    return [a.documents.tolist() for a in kept]


@pytest.mark.parametrize("cache", [None, "static"])
def test_the_steps_of_a_text_are_one_document(llama, cache):
    kind = {} if cache is None else {"cache_implementation": cache}
    kept, probe = seen(llama, lambda: llama.generate(IDS, attention_mask=MASK, **kind, **STEPS))
    assert [a.documents.tolist() for a in kept] == [[0, 1, 2, 3]] * 6
    assert probe.n_samples == {SITE: 18 + 4 * 5}
    assert probe.compute().run["documents"] == {"joined through the cache": 20}


def test_a_loop_of_ones_own(llama):
    def loop() -> None:
        out, mask = llama(IDS, attention_mask=MASK), MASK
        for _ in range(3):
            token = out.logits[:, -1:].argmax(-1)
            mask = torch.cat([mask, mask.new_ones(4, 1)], dim=1)
            past = out.past_key_values
            out = llama(token, attention_mask=mask, past_key_values=past)

    assert documents(llama, loop) == [[0, 1, 2, 3]] * 4
    # A prompt that comes again begins no new document.
    assert documents(llama, lambda: (loop(), loop())) == [[0, 1, 2, 3]] * 8


def test_without_a_cache_the_tokens_tell(llama):
    run = documents(llama, lambda: llama.generate(IDS, use_cache=False, **STEPS))
    assert run == [[0, 1, 2, 3]] * 6


def test_beams_of_a_prompt_are_one_document_and_follow_their_texts(llama):
    run = documents(llama, lambda: llama.generate(IDS, num_beams=3, **STEPS))
    assert {tuple(d) for d in run} == {(0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9)}

    def reordered() -> None:
        past = llama(IDS).past_key_values
        past.reorder_cache(torch.tensor([2, 0, 0, 3]))
        llama(IDS[:, :1], past_key_values=past)
        past.reorder_cache(torch.tensor([3, 3, 1, 0]))
        llama(IDS[:, :1], past_key_values=past)

    assert documents(llama, reordered) == [[0, 1, 2, 3], [2, 0, 0, 3], [3, 3, 0, 2]]


def test_what_follows_the_end_of_a_text_does_not_count(llama):
    llama.generation_config.eos_token_id = list(range(5, 40))
    kept: dict[str, Tensor] = {}

    def run() -> None:
        torch.manual_seed(3)
        kept["out"] = llama.generate(IDS, attention_mask=MASK, max_new_tokens=8, do_sample=True)

    _, probe = seen(llama, run)
    new = kept["out"][:, 5:-1]  # the last token is not read any more
    ended = ((new >= 5) & (new < 40)).int().cumsum(dim=1).cumsum(dim=1) > 1
    assert bool(ended.any())
    assert probe.n_samples == {SITE: 18 + int((~ended).sum())}


def test_tokens_taken_back_are_refused(llama):
    other = transformers.LlamaForCausalLM(llama.config).eval()
    _, probe = seen(llama, lambda: llama.generate(IDS[:1], assistant_model=other, **STEPS))
    with pytest.raises(pc.SiteError, match="taken back from the cache"):
        probe.compute()


def test_a_cache_of_unknown_origin_claims_nothing(llama):
    past = llama(IDS).past_key_values
    assert documents(llama, lambda: llama(IDS[:, :1], past_key_values=past)) == [[UNKNOWN] * 4]


def test_packed_rows_hold_several_documents(llama):
    ids = torch.cat([IDS, IDS[:, :2]], dim=1)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]]).repeat(4, 1)
    (run,) = documents(llama, lambda: llama(ids, position_ids=positions))
    blocks = torch.zeros(4, 1, 7, 7, dtype=torch.bool)
    blocks[:, :, :3, :3], blocks[:, :, 3:, 3:] = True, True
    (masked,) = documents(llama, lambda: llama(ids, attention_mask=blocks.tril()))
    for found in (torch.tensor(run), torch.tensor(masked)):
        assert found.shape == (4, 7)
        assert len(found.unique()) == 8
        assert bool((found[:, :3] == found[:, :1]).all() and (found[:, 3:] == found[:, 3:4]).all())
    data = [{"input_ids": ids, "position_ids": positions}]
    result = pc.analyze(llama, data, pc.metrics.Action(), SITE)[SITE, "action"]
    apart = [{"input_ids": ids[:, :3]}, {"input_ids": ids[:, 3:]}]
    expected = pc.analyze(llama, apart, pc.metrics.Action(), SITE)[SITE, "action"]
    # No path leads from one document of a row into the next.
    assert result.n_samples == expected.n_samples


def test_positions_that_begin_with_padding_are_one_document():
    known = Documents()
    arguments = {"position_ids": torch.tensor([[1, 1, 0, 1, 2]]), "input_ids": IDS[:1]}
    known.begin(arguments, 1, 5)
    assert known.of_pass.tolist() == [0]
    packed = {"position_ids": torch.tensor([[3, 4, 0, 1, 0]]), "input_ids": IDS[:1]}
    known.begin(packed, 1, 5)
    assert len(set(known.of_pass[0].tolist())) == 3


def test_documents_of_a_tensor_must_fit_it():
    with pytest.raises(pc.DataError, match="documents of shape"):
        Activations(torch.randn(3, 4), ("batch", "feature"), documents=torch.arange(2))
    several = torch.tensor([[0, 0, 1], [2, 2, 2]])
    mask = torch.tensor([[True, False, True], [True, True, True]])
    activations = Activations(
        torch.randn(2, 3, 4), ("batch", "position", "feature"), mask=mask, documents=several
    )
    assert activations.sample_documents().tolist() == [0, 1, 2, 2, 2]
