"""Models of PEFT: its wrappers change the length, the mask and who generates.

Run by `make test-packages`; elsewhere these are skipped by name.
"""

from __future__ import annotations

import os

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import polycode_plugins as pc

if "FOREIGN_PACKAGES" not in os.environ:
    pytest.skip("needs the packages that `make test-packages` installs", allow_module_level=True)

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")

VIRTUAL, ROWS, LENGTH, LEFT_OUT = 5, 24, 12, 4
CAUSAL = {"task_type": "CAUSAL_LM"}
SIZES = {"num_layers": 2, "token_dim": 32, "num_attention_heads": 4}
KINDS = {  # the configuration, and how many tokens stand before each text in the stream
    "lora": (peft.LoraConfig(**CAUSAL, target_modules=["c_attn"]), 0),
    "prompt": (peft.PromptTuningConfig(**CAUSAL, **SIZES, num_virtual_tokens=VIRTUAL), VIRTUAL),
    "prefix": (peft.PrefixTuningConfig(**CAUSAL, num_virtual_tokens=VIRTUAL), 0),
    "ia3": (
        peft.IA3Config(**CAUSAL, target_modules=["c_attn"], feedforward_modules=[]),
        0,
    ),
}


@pytest.fixture(params=sorted(KINDS))
def tuned(request):
    """(model, name of its last block, virtual tokens)."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=99,
                   bos_token_id=0, eos_token_id=0, pad_token_id=0)
    )  # fmt: skip
    config, virtual = KINDS[request.param]
    wrapped = peft.get_peft_model(model, config).eval()
    (block,) = [name for name, _ in wrapped.named_modules() if name.endswith("h.1")]
    return wrapped, block, virtual


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """Token rows, of which the first half are padded on the left, and their mask."""
    ids = torch.randint(1, 99, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[: ROWS // 2, :LEFT_OUT] = 0
    return ids, mask


@torch.no_grad()
def test_what_counts_is_what_the_mask_of_the_stream_says(tuned):
    model, block, virtual = tuned
    ids, mask = texts()
    held = []
    hook = model.get_submodule(block).register_forward_hook(
        lambda module, inputs, output: held.append(
            output[0] if isinstance(output, tuple) else output
        )
    )
    with pc.attach(model, [block], ["spectrum"]) as probe:
        for some, of_some in zip(ids.split(8), mask.split(8), strict=True):
            model(input_ids=some, attention_mask=of_some)
    hook.remove()
    counts = torch.cat([torch.ones(ROWS, virtual, dtype=torch.int64), mask], dim=1).bool()
    rows = torch.cat(held)[counts].double()
    result = probe.compute()[block, "spectrum"]
    assert result.n_samples == len(rows)
    assert result.total_variance == pytest.approx(float(rows.var(dim=0).sum()), rel=1e-9)
    assert sum(probe.left_out[block].values()) == ROWS // 2 * LEFT_OUT


@torch.no_grad()
def test_what_it_generates_is_counted_once(tuned):
    model, block, virtual = tuned
    ids, mask = texts()
    with pc.attach(model, [block], ["spectrum"]) as probe:
        made = model.generate(
            input_ids=ids[:4], attention_mask=mask[:4], max_new_tokens=6, min_new_tokens=6,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
    assert made.shape == (4, LENGTH + 6)
    # The last token that is made is never read.
    assert probe.n_samples[block] == 4 * (virtual + LENGTH - LEFT_OUT + 5)
