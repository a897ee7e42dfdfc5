"""What counts: the mask of the stream that a site belongs to, however the model is given it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from capture_helpers import Mean
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.adapters.evidence import masks

IDS = torch.randint(5, 60, (4, 6), generator=torch.Generator().manual_seed(3))
MASK = torch.ones_like(IDS)
MASK[0, 3:] = 0  # 21 of 24 count
OWN = torch.ones_like(IDS)
OWN[:, 4:] = 0  # 16 of 24
PIXELS = torch.randn(4, 3, 16, 16)


def count(model: nn.Module, site: str, *args: Any, options: Any = None, **kwargs: Any) -> int:
    with pc.attach(model, site, Mean(), **(options or {})) as probe, torch.no_grad():
        model(*args, **kwargs)
    analysis = probe.compute()
    left_out = sum(analysis.run["left_out"].get(site, {}).values())
    assert analysis[site, "mean"].n_samples == probe.n_samples[site]
    assert left_out >= 0
    return probe.n_samples[site]


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    return transformers.BertModel(config).eval()


@pytest.fixture(scope="module")
def bart() -> nn.Module:
    torch.manual_seed(0)
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in SIDES.items()}
    config = transformers.BartConfig(
        vocab_size=60, d_model=16, max_position_embeddings=30, pad_token_id=1, **sizes
    )
    return transformers.BartForConditionalGeneration(config).eval()


SIDES = {"ffn_dim": 24, "layers": 1, "attention_heads": 2}
LAYER = "encoder.layer.0.output"


def test_one_mask_however_it_is_given(bert):
    keys = MASK[:, None, None].bool()
    added = (1 - MASK[:, None, None].float()) * torch.finfo(torch.float32).min
    encoding = transformers.BatchEncoding({"input_ids": IDS, "attention_mask": MASK})
    assert count(bert, LAYER, IDS, MASK) == 21
    assert count(bert, LAYER, **encoding) == 21
    for mask in (MASK.bool(), MASK.float(), keys, keys.expand(4, 1, 6, 6), added):
        assert count(bert, LAYER, IDS, attention_mask=mask) == 21
    assert count(bert, LAYER, IDS) == 24
    assert count(bert, "pooler", IDS, MASK) == 4  # it says nothing about rows


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(16, 3)

    def forward(self, batch: Any) -> Tensor:
        return self.head(self.inner(batch["input_ids"], batch["attention_mask"])[0])


def test_a_mask_inside_of_a_wrappers_batch(bert):
    batch = {"input_ids": IDS, "attention_mask": MASK}
    model = Wrapper(bert).eval()
    for site in (f"inner.{LAYER}", "head"):
        assert count(model, site, batch) == 21
        assert count(model, site, batch=batch) == 21
        assert count(model, site, transformers.BatchEncoding(batch)) == 21


def test_a_mask_in_the_batches_of_a_loader(bert, bart):
    data = [{"input_ids": i, "attention_mask": m} for i, m in zip(IDS, MASK, strict=True)]
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    assert pc.analyze(bert, loader, Mean(), LAYER)[LAYER, "mean"].n_samples == 21
    labelled = [(batch, torch.zeros(2)) for batch in loader]
    assert pc.analyze(bert, labelled, Mean(), LAYER)[LAYER, "mean"].n_samples == 21
    both = [{**batch, "decoder_input_ids": batch["input_ids"]} for batch in loader]
    sites = ["model.encoder.layers.0", "model.decoder.layers.0"]
    analysis = pc.analyze(bart, both, Mean(), sites)
    assert [analysis[site, "mean"].n_samples for site in sites] == [21, 24]


def test_each_stream_has_its_own(bart):
    both = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": IDS}
    encoder, decoder = "model.encoder.layers.0", "model.decoder.layers.0"
    assert count(bart, encoder, **both) == 21
    assert count(bart, decoder, **both) == 24
    assert count(bart, decoder, **both, decoder_attention_mask=OWN) == 16
    assert count(bart, encoder, **both, decoder_attention_mask=OWN) == 21
    assert count(bart, decoder, **{**both, "decoder_input_ids": IDS[:, :5]}) == 20
    # Keys of the attention across are of the encoder's stream, and its output of the decoder's.
    assert count(bart, f"{decoder}.encoder_attn.k_proj", **both) == 21
    assert count(bart, f"{decoder}.encoder_attn", **both, decoder_attention_mask=OWN) == 16


def test_generation_of_an_encoder_decoder(bart):
    encoder, decoder = "model.encoder.layers.0", "model.decoder.layers.0"
    keys = f"{decoder}.encoder_attn.k_proj"
    with pc.attach(bart, [encoder, decoder, keys], Mean()) as probe:
        bart.generate(
            input_ids=IDS, attention_mask=MASK, max_new_tokens=5, min_new_tokens=5, do_sample=False
        )
    assert probe.n_samples == {encoder: 21, decoder: 20, keys: 21}


def test_towers_of_text_and_pictures():
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": 60, "max_position_embeddings": 20, "eos_token_id": 59, **sizes}
    picture = {"image_size": 16, "patch_size": 8, **sizes}
    config = transformers.CLIPConfig(text_config=text, vision_config=picture, projection_dim=8)
    clip = transformers.CLIPModel(config).eval()
    both = {"input_ids": IDS, "attention_mask": MASK, "pixel_values": PIXELS}
    assert count(clip, "text_model.encoder.layers.0", **both) == 21
    assert count(clip, "vision_model.encoder.layers.0", **both) == 20  # 4 patches and one more
    vilt = transformers.ViltModel(transformers.ViltConfig(**text | picture)).eval()
    mixed = {**both, "pixel_mask": torch.ones(4, 16, 16, dtype=torch.long)}
    assert count(vilt, "encoder.layer.0", **mixed) == 21 + 20


def test_a_mask_of_samples_is_none_of_frames():
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=(8, 8),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
    )
    model = transformers.Wav2Vec2Model(config).eval()
    sound, mask = torch.randn(4, 400), torch.ones(4, 400, dtype=torch.long)
    conv, layer = "feature_extractor.conv_layers.0", "encoder.layers.0"
    assert count(model, layer, sound) == count(model, layer, sound, attention_mask=mask) == 156
    mask[0, 200:] = 0
    assert count(model, layer, sound, attention_mask=mask) == 136
    with pytest.raises(pc.SiteError, match=r"mask \(4, 400\).*4 rows of 79 positions"):
        count(model, conv, sound, attention_mask=mask)
    frames = torch.arange(79) < torch.tensor([[39], [79], [79], [79]])
    options = {"mask": lambda arguments: frames}
    assert count(model, conv, sound, attention_mask=mask, options=options) == 39 + 3 * 79


def test_prompts_of_vectors_come_with_a_longer_mask(bert):
    class Prompted(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.prompt = inner, nn.Parameter(torch.randn(2, 16))

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            words = self.inner.embeddings.word_embeddings(input_ids)
            prompt = self.prompt.expand(len(words), -1, -1)
            mask = torch.cat([attention_mask.new_ones(len(words), 2), attention_mask], 1)
            return self.inner(inputs_embeds=torch.cat([prompt, words], 1), attention_mask=mask)

    assert count(Prompted(bert), f"inner.{LAYER}", input_ids=IDS, attention_mask=MASK) == 21 + 8


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.parametrize("batch_first", [True, False])
def test_pytorchs_transformer_has_a_mask_for_each_stream(batch_first):
    torch.manual_seed(0)
    model = nn.Transformer(8, 2, 1, 1, 12, batch_first=batch_first)  # in training: no fast path
    source, target = torch.randn(4, 7, 8), torch.randn(4, 5, 8)
    if not batch_first:
        source, target = source.transpose(0, 1), target.transpose(0, 1)
    padded, own = torch.zeros(4, 7, dtype=torch.bool), torch.zeros(4, 5, dtype=torch.bool)
    padded[0, 4:], own[1, 3:] = True, True
    masks = {"src_key_padding_mask": padded, "tgt_key_padding_mask": own}
    masks |= {"memory_key_padding_mask": padded}
    assert count(model, "encoder.layers.0.linear1", source, target, **masks) == 25
    assert count(model, "decoder.layers.0.linear1", source, target, **masks) == 18
    assert count(model, "decoder.layers.0.multihead_attn", source, target, **masks) == 18


def test_a_mask_of_unknown_meaning_is_asked_for():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(60, 4)

        def forward(self, input_ids: Tensor, pad_mask: Tensor) -> Tensor:
            return self.embed(input_ids)

    with pytest.raises(pc.SiteError, match="'pad_mask', and whether True there means"):
        count(Own(), "embed", IDS, MASK.bool())
    assert count(Own(), "embed", IDS, MASK.bool(), options={"mask": MASK.bool()}) == 21
    assert count(Own(), "embed", IDS, MASK.bool(), options={"mask": None}) == 24


def test_what_the_user_says_counts(bert):
    def options(mask: Any) -> dict[str, Any]:
        return {"mask": mask}

    both = {"input_ids": IDS, "attention_mask": MASK}
    assert count(bert, LAYER, **both, options=options(None)) == 24
    assert count(bert, LAYER, **both, options=options(OWN.bool())) == 16
    rows = torch.tensor([True, False, True, True])
    assert count(bert, LAYER, **both, options=options(rows)) == 18
    by_name = options(lambda arguments: arguments["input_ids"] > 30)
    assert count(bert, LAYER, **both, options=by_name) == int((IDS > 30).sum())
    with pytest.raises(pc.SiteError, match=r"mask \(4, 5\) that was given does not fit"):
        count(bert, LAYER, **both, options=options(OWN.bool()[:, 1:]))
    for wrong in (torch.ones(2, 2, 2), "padding", 3):
        with pytest.raises(pc.DataError, match="mask= is a bool tensor"):
            count(bert, LAYER, **both, options=options(wrong))


def test_the_result_says_what_was_left_out(bert):
    with pc.attach(bert, LAYER, Mean()) as probe, torch.no_grad():
        bert(IDS, MASK)
        bert(IDS, MASK)
    assert probe.left_out == {LAYER: {"attention_mask of BertModel": 6}}
    assert f"left out at {LAYER}: 6 by attention_mask of BertModel" in repr(probe)
    analysis = probe.compute()
    assert analysis.run["left_out"] == probe.left_out
    assert "6 positions left out" in repr(analysis)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_is_read_once_in_a_pass_is_read_anew_where_it_was_changed(mode):
    call = SimpleNamespace(notes={})
    call.outwards = lambda: iter([call])
    with mode():
        values = torch.ones(3)
        read = [masks._once(call, values, "sum", values.sum) for _ in range(2)]
        values[0] = 0
        read.append(masks._once(call, values, "sum", values.sum))
    assert [float(r) for r in read] == [3, 3, 2]
    assert (read[0] is read[1]) == (mode is torch.no_grad)  # shared where that is known to hold
