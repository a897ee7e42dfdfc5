"""Loading any model of transformers from a name, a folder or a GGUF file, with what reads its data.

The class is the one that the checkpoint names, so that modules have the paths that transformers
gives them; of an encoder with a decoder the encoder is taken, which is what reads texts.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polycode_plugins.adapters.gguf import gguf_file, read_gguf
from polycode_plugins.adapters.pretrained import (
    CODE_NOTE,
    TOKENIZER_FILES,
    check_folder,
    check_hub,
    check_tokenizer,
    check_weights,
    code_refused,
    device_named,
    dtype_named,
    needs_code,
    quiet,
    short,
)
from polycode_plugins.adapters.transformer_lens.loading import reads_architecture
from polycode_plugins.errors import ModelError
from polycode_plugins.files.guards import json_value
from polycode_plugins.plugins import cause, missing_extra

TEXT, IMAGES = "input_ids", "pixel_values"


@dataclass(frozen=True)
class Loaded:
    """A model, what reads its data, and what to record of where it is from."""

    model: Any
    tokenizer: Any = None
    processor: Any = None
    record: dict[str, Any] = field(default_factory=dict)


def lens_reads(folder: Path) -> bool:
    """Whether TransformerLens reads the model in `folder`, to judge by its configuration."""
    try:
        config = json_value((folder / "config.json").read_text(encoding="utf-8"))
        named = list(config.get("architectures") or [])
    except (OSError, ValueError, AttributeError, TypeError):
        return True  # broken: loading says how
    if not named:
        return True  # it looks the kind of the model up by itself
    texts = any("vocab_size" in part for part in (config, config.get("text_config") or {}))
    return texts and not config.get("is_encoder_decoder") and reads_architecture(str(named[0]))


def load_model(
    model: str | Path,
    tokenizer: Any,
    device: str | None,
    dtype: str | None,
    device_map: Any,
    trust_remote_code: bool = False,
) -> Loaded:
    """The model in evaluation mode; nothing of its folder is run as code unless that is allowed.

    Raises:
        ModelError: when it cannot be loaded, in one sentence.
        PluginError: when transformers is not installed.
    """
    name = str(model)
    options: dict[str, Any] = {"dtype": dtype_named(dtype or "float32")}
    if device_map is not None:
        options["device_map"] = device_map
    if device is not None:
        device_named(device)
    file = gguf_file(model)
    if file is not None:
        loaded, own, record = read_gguf(file, **options)
        found = Loaded(loaded, own if tokenizer is None else tokenizer, None, record)
    else:
        if not check_folder(model):
            check_hub(name)
        found = _from_pretrained(name, tokenizer, options, trust_remote_code)
    if getattr(found.model, "main_input_name", TEXT) == TEXT:
        check_tokenizer(name, found.tokenizer)
    root, record = found.model, found.record
    if getattr(root.config, "is_encoder_decoder", False):
        root = root.get_encoder()
        note = "Of this model with an encoder and a decoder the encoder was read."
        record = record | {"part": "encoder", "notes": [*record.get("notes", []), note]}
    if device is not None:
        root = root.to(device)
    return Loaded(root.eval(), found.tokenizer, found.processor, record)


def _from_pretrained(name: str, tokenizer: Any, options: dict[str, Any], trusted: bool) -> Loaded:
    code = {"trust_remote_code": trusted}
    with quiet() as reports:
        try:
            import transformers
        except ModuleNotFoundError as error:
            if error.name != "transformers":
                raise
            what = "loading a model of transformers"
            raise missing_extra("transformers", "transformer-lens", what) from error
        try:
            model = _model(transformers, name, options | code, reports)
            processor = None
            if model.main_input_name == IMAGES:
                processor = _processor(transformers, name, trusted)
            elif tokenizer is None and model.main_input_name == TEXT and _may_have_one(name):
                tokenizer = transformers.AutoTokenizer.from_pretrained(name, **code)
        except Exception as error:  # the hub, the file system and the parsers raise their own
            if needs_code(error) and not trusted:
                raise code_refused(name) from error
            raise ModelError(
                f"the model {name!r} does not load ({short(cause(error))}); give the name of a "
                "model on the Hugging Face hub, a folder in its format, or a GGUF file"
            ) from error
    check_weights(name, reports)
    return Loaded(model, tokenizer, processor, {"notes": [CODE_NOTE]} if trusted else {})


def _model(transformers: Any, name: str, options: dict[str, Any], reports: list[str]) -> Any:
    code = {"trust_remote_code": options["trust_remote_code"]}
    config = transformers.AutoConfig.from_pretrained(name, **code)
    kind = _class_of(transformers, config)
    model = kind.from_pretrained(name, **options)
    if _lacks_pooler_alone(reports, kind):  # many encoders are saved without
        reports.clear()
        model = kind.from_pretrained(name, add_pooling_layer=False, **options)
    return model


def _may_have_one(name: str) -> bool:
    """Whether there is a tokenizer to load; transformers makes an empty one of a folder without."""
    folder = Path(name)
    return not folder.is_dir() or any((folder / file).is_file() for file in TOKENIZER_FILES)


def _class_of(transformers: Any, config: Any) -> Any:
    """The class that the checkpoint was saved from; the bare model where it names none."""
    named = list(getattr(config, "architectures", None) or [])
    kind = getattr(transformers, str(named[0]), None) if named else None
    if isinstance(kind, type):
        return kind
    own = getattr(config, "auto_map", None) or {}  # classes in code that comes with it
    given = [n for n in own if n.startswith("AutoModel") and hasattr(transformers, n)]
    return getattr(transformers, given[0]) if given else transformers.AutoModel


def _lacks_pooler_alone(reports: list[str], kind: Any) -> bool:
    lines = [line for report in reports for line in report.splitlines() if "MISSING" in line]
    lacking = [line for line in lines if "|" in line and not line.startswith(("- ", "Notes"))]
    takes = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return takes and bool(lacking) and all(line.startswith("pooler.") for line in lacking)


def _processor(transformers: Any, name: str, trusted: bool) -> Any:
    """What makes a tensor of a picture; None for a model that was saved without it."""
    try:
        return transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=trusted)
    except (OSError, ValueError, KeyError, ImportError):
        return None


def longest_of(model: Any, tokenizer: Any) -> int | None:
    """How many positions a model of texts reads, where model or tokenizer says; else None."""
    config = getattr(model, "config", None)
    if config is None:
        return None
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    # A tokenizer knows better than a table of positions of which the first are for padding.
    said = [getattr(text, "max_position_embeddings", None)]
    said.append(getattr(tokenizer, "model_max_length", None))
    known = [int(n) for n in said if isinstance(n, int) and 0 < n < 10**9]
    return min(known, default=None)
