"""Writes activations and spectra of one folder's GPT-2, with whatever TransformerLens is found.

    python dump_activations.py FOLDER OUT.safetensors

The two majors of TransformerLens cannot be imported together, so each runs this by itself; see
tests/adapters/transformer_lens/test_majors.py.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import polycode_plugins as pc
from polycode_plugins.adapters.base import DataOptions

SITES = [
    *("hook_embed", "hook_pos_embed", "blocks.0.hook_resid_pre", "blocks.1.hook_resid_mid"),
    *("blocks.1.attn.hook_q", "blocks.2.attn.hook_k", "blocks.0.attn.hook_v"),
    *("blocks.1.attn.hook_z", "blocks.1.hook_attn_out", "blocks.1.ln1.hook_normalized"),
    *("blocks.2.mlp.hook_pre", "blocks.2.mlp.hook_post", "blocks.2.hook_mlp_out"),
    *("blocks.0.hook_resid_post", "blocks.3.hook_resid_post", "ln_final.hook_normalized"),
]


def rows() -> torch.Tensor:
    """Tokens [row, position]; the first is special and does not count."""
    tokens = torch.randint(1, 300, (24, 12), generator=torch.Generator().manual_seed(3))
    tokens[:, 0] = 0
    return tokens


def main(folder: Path, out: Path) -> None:
    logger = logging.getLogger("transformers")
    before = logger.level, list(logging.getLogger().handlers)
    adapter = pc.load(folder)
    if (logger.level, list(logging.getLogger().handlers)) != before:
        raise AssertionError("loading a model changed the settings of logging")
    models = {"bridge": adapter.model}
    kept: dict[str, torch.Tensor] = {}
    version = adapter.describe()["transformer_lens"]
    if version < "4":
        from tiny_models import lens_model

        models["hooked"] = lens_model("hooked", folder)
    for kind, model in models.items():
        live = pc.load(model)
        (batch,) = live.stream(rows(), SITES, options=DataOptions(batch_size=24))
        kept |= {f"{kind}/{name}": a.values.contiguous() for name, a in batch.items()}
        analysis = pc.analyze(live, rows(), pc.metrics.Spectrum(ranks=(2, 20)), SITES[-3:])
        for name in analysis:
            spectrum = torch.tensor(analysis[name, "spectrum"].eigenvalues)
            kept[f"{kind}/{name}/eigenvalues"] = spectrum
    save_file(kept, out)
    print(json.dumps({"version": version, "kinds": list(models)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
