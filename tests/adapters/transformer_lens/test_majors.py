"""The majors of TransformerLens give the same numbers on the same weights, and load quietly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dump_activations import SITES, rows
from places import HELPERS, ROOT
from safetensors.torch import load_file
from tiny_models import LAYERS
from transformers import GPT2LMHeadModel

# A folder with TransformerLens 3, to put before the installed packages (`make test-tl3`).
OVERLAY = Path(os.environ.get("TRANSFORMER_LENS_3", ROOT / "build" / "transformer-lens-3"))


Dump = dict[str, torch.Tensor]


def dumped(major: str, folder: Path, out: Path) -> dict[str, Dump] | str:
    """{kind of model: {site: activations}} of one major, or why there is none."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(ROOT), *(p for p in given if p and Path(p).resolve() != OVERLAY.resolve())]
    if major == "3":
        if not (OVERLAY / "transformer_lens").is_dir():
            return f"no TransformerLens 3 in {OVERLAY}; 'make test-tl3' puts it there"
        paths.insert(0, str(OVERLAY))
    done = subprocess.run(
        [sys.executable, str(HELPERS / "dump_activations.py"), str(folder), str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = json.loads(done.stdout)
    if said["version"].partition(".")[0] != major:
        return f"TransformerLens {said['version']} is installed"
    dump = load_file(out)
    return {
        kind: {k.partition("/")[2]: v for k, v in dump.items() if k.startswith(f"{kind}/")}
        for kind in said["kinds"]
    }


@pytest.fixture(scope="module")
def dumps(
    gpt2_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Dump] | str]:
    folder = tmp_path_factory.mktemp("dumps")
    return {m: dumped(m, gpt2_folder, folder / f"{m}.safetensors") for m in ("3", "4")}


@pytest.fixture(scope="module")
def truth(gpt2_folder: Path) -> Dump:
    """The same activations out of the Hugging Face model, without TransformerLens."""
    model: Any = GPT2LMHeadModel.from_pretrained(gpt2_folder, attn_implementation="eager").eval()
    core, found = model.transformer, {}

    def keep(site: str, of_input: bool = False) -> Any:
        def hook(_module: Any, args: Any, output: Any) -> None:
            value = args[0] if of_input else output
            found[site] = (value[0] if isinstance(value, tuple) else value).detach()

        return hook

    core.wte.register_forward_hook(keep("hook_embed"))
    core.h[0].register_forward_hook(keep("blocks.0.hook_resid_pre", of_input=True))
    core.h[1].ln_2.register_forward_hook(keep("blocks.1.hook_resid_mid", of_input=True))
    core.h[1].attn.c_proj.register_forward_hook(keep("blocks.1.attn.hook_z", of_input=True))
    core.h[1].attn.register_forward_hook(keep("blocks.1.hook_attn_out"))
    core.h[2].mlp.c_fc.register_forward_hook(keep("blocks.2.mlp.hook_pre"))
    core.h[2].mlp.c_proj.register_forward_hook(keep("blocks.2.mlp.hook_post", of_input=True))
    core.h[2].mlp.register_forward_hook(keep("blocks.2.hook_mlp_out"))
    for layer in (0, LAYERS - 1):
        core.h[layer].register_forward_hook(keep(f"blocks.{layer}.hook_resid_post"))
    with torch.no_grad():
        model(rows())
    return found


@pytest.mark.parametrize("major", ["3", "4"])
def test_activations_are_those_of_the_model(
    dumps: dict[str, dict[str, Dump] | str], truth: Dump, major: str
) -> None:
    found = dumps[major]
    if isinstance(found, str):
        pytest.skip(found)
    for of_kind in found.values():
        assert set(truth) < set(SITES) <= set(of_kind)
        for site, values in truth.items():
            torch.testing.assert_close(of_kind[site].reshape(values.shape), values)


def test_both_majors_and_both_kinds_of_model_agree(dumps: dict[str, dict[str, Dump] | str]) -> None:
    three, four = dumps["3"], dumps["4"]
    for found in (three, four):
        if isinstance(found, str):
            pytest.skip(found)
    assert isinstance(three, dict)
    assert isinstance(four, dict)
    assert set(three) == {"bridge", "hooked"}
    for found in three.values():
        assert found.keys() == four["bridge"].keys()
        for site, values in four["bridge"].items():
            torch.testing.assert_close(found[site], values)
