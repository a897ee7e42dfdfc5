"""The `transformers` adapter: any model of Hugging Face's transformers, by folder, name or live.

TransformerLens reads the architectures it knows, most of them language models with their head. This
adapter reads all: encoders of texts, bare models without a head, the encoder of a translator,
vision transformers. Sites are the modules under the paths that transformers gives them.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Batch
from polycode_plugins.adapters.blocks import block_paths, listed_blocks, sites_at
from polycode_plugins.adapters.inputs import tensor_batches
from polycode_plugins.adapters.module import ModuleAdapter
from polycode_plugins.adapters.text import (
    check_tokens,
    language_batches,
    special_ids,
    token_text,
)
from polycode_plugins.adapters.transformers.loading import (
    IMAGES,
    TEXT,
    lens_reads,
    load_model,
    longest_of,
)
from polycode_plugins.data.images import image_batches
from polycode_plugins.data.incoming import Incoming, incoming
from polycode_plugins.data.picture_rows import pictures_of
from polycode_plugins.data.pictures import PHOTOGRAPH, Pictures
from polycode_plugins.data.windows import tokenizer_frame
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, ModelError

Transform = Callable[[Any], Tensor]

_TRACED_ROWS, _TRACED_POSITIONS = 2, 64
_CROPS = 1000  # of the embedded photographs, unless more rows are asked for


class TransformersAdapter(ModuleAdapter):
    """A model of transformers.

    Args:
        model: a live PreTrainedModel, a folder in Hugging Face format, a GGUF file (its weights are
            dequantised, which the record says), or the name of a model on the Hugging Face hub.
            Of a model with encoder and decoder that is loaded here, the encoder is read.
        tokenizer: of a live model, or in place of the one that was saved with it.
        transform: what makes a float tensor [3, height, width] of an RGB PIL image; by default what
            was saved with the model.
        device: where to load a model given by name, folder or file.
        dtype: of such a model, by name: "float32" (the default), "bfloat16", ...
        device_map: how to spread such a model over devices ("auto", ...), as transformers takes it.
        trust_remote_code: run code that comes with such a model, this once; the record says so.
        prepend_bos: put the beginning-of-text token before each window of text. When None what
            stands before and after a text is what the tokenizer puts there ([CLS] and [SEP] of
            BERT, nothing of GPT-2 and Qwen). None of it enters the statistics unless special tokens
            are asked for.
        include_special: let special tokens into the statistics of somebody else's forward passes
            (`pc.attach`); padding stays out. `pc.analyze` has an argument of the same name.
        axes: as for the `module` adapter.

    Raises:
        ModelError: for what does not load, lacks weights or a tokenizer, or brings code of its own.
        PluginError: when transformers is needed to load the model and is not installed.
    """

    name = "transformers"
    generic = False

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any = None,
        transform: Transform | None = None,
        device: str | None = None,
        dtype: str | None = None,
        device_map: Any = None,
        trust_remote_code: bool = False,
        prepend_bos: bool | None = None,
        include_special: bool = False,
        axes: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    ) -> None:
        self._name = str(model) if isinstance(model, str | Path) else None
        self._record: dict[str, Any] = {}
        processor = None
        if self._name is not None:
            loaded = load_model(self._name, tokenizer, device, dtype, device_map, trust_remote_code)
            model, tokenizer, processor = loaded.model, loaded.tokenizer, loaded.processor
            self._record = loaded.record
        elif (device, dtype, device_map, trust_remote_code) != (None, None, None, False):
            raise ModelError(
                "device=, dtype=, device_map= and trust_remote_code= are for models given by name "
                "or folder; move a "
                "live model with model.to(...)"
            )
        if not hasattr(model, "main_input_name"):
            raise ModelError(
                f"{type(model).__name__} is no model of transformers (it says no main_input_name); "
                "use the 'module' adapter for a plain nn.Module"
            )
        super().__init__(model, axes=axes)
        self._tokenizer = tokenizer
        self._processor = processor
        self._transform = transform
        self._prepend_bos = prepend_bos
        self._include_special = include_special
        # Keys and values of all layers would be kept for a next token that never comes.
        takes = inspect.signature(model.forward).parameters
        self._without_cache = {"use_cache": False} if "use_cache" in takes else {}

    @classmethod
    def accepts(cls, model: object) -> bool:
        """A live PreTrainedModel, and a folder of a model that TransformerLens does not read."""
        if isinstance(model, str | Path):
            return os.path.isfile(Path(model, "config.json")) and not lens_reads(Path(model))
        # Without transformers imported nothing can be an object of its classes.
        library = sys.modules.get("transformers")
        return library is not None and isinstance(model, library.PreTrainedModel)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, or None."""
        return self._tokenizer

    @property
    def _reads(self) -> str:
        """The name of the model's main input: "input_ids", "pixel_values", ..."""
        return str(self._model.main_input_name)

    # -- sites -----------------------------------------------------------------------------------

    def sites(self, example: Batch | None = None) -> list[Site]:
        """Module paths, as the `module` adapter finds them; of an example a corner is run."""
        return super().sites(None if example is None else _corner(example))

    def default_sites(self, sites: Sequence[Site]) -> list[str]:
        """The stem and the output of every block: the residual stream of a transformer."""
        paths = listed_blocks(self._model) or block_paths(self._model)
        found = sites_at(paths, [s.name for s in sites])
        return found or super().default_sites(sites)

    # -- capture ---------------------------------------------------------------------------------

    def _reading(self) -> dict[str, Any]:
        special = [] if self._include_special else special_ids(self._tokenizer)
        return {"special": special, "text": token_text(self._tokenizer)}

    def _call(self, batch: Batch) -> None:
        inputs = batch.inputs
        if isinstance(inputs, Tensor):
            inputs = {self._reads: inputs}
        if isinstance(inputs, Mapping):
            inputs = {k: v for k, v in inputs.items() if k != "labels"} | self._without_cache
        super()._call(Batch(inputs, rows=batch.rows))

    # -- data ------------------------------------------------------------------------------------

    def batches(self, data: Any, options: DataOptions) -> Iterable[Batch]:
        """Windows of text, images, or tensors as they are, whichever the model reads.

        Args:
            data: for a model of texts a file, a folder, JSON lines, `hf:name`, texts or
                conversations however they are held, None for the embedded corpus, or tokens int64
                [rows, position]; for a model of images what the `torchvision` adapter reads; for
                all others what the `module` adapter reads.
        """
        given = data
        if data is not None and not isinstance(data, str | Path | Pictures):
            images = self._reads == IMAGES
            given = incoming(data, text_field=options.text_field, images=images)
        if self._reads == TEXT and _translates(self._model):
            if not isinstance(given, Incoming) or given.kind == "texts":
                raise DataError(
                    f"{type(self._model).__name__} has an encoder and a decoder, which read "
                    "different tokens; pass model.get_encoder(), or batches with the tokens of both"
                )
            return tensor_batches(given, options)
        if self._reads == TEXT:
            return self._texts(given, options)
        if self._reads == IMAGES:
            pictures = pictures_of(given) if isinstance(given, Incoming) else given
            if pictures is not None or not isinstance(given, Incoming):
                return self._images(pictures, options)
        return tensor_batches(given, options)

    def _texts(self, data: Any, options: DataOptions) -> Iterator[Batch]:
        model: Any = self._model
        table = model.get_input_embeddings()
        size = table.num_embeddings if isinstance(table, nn.Embedding) else None
        longest = longest_of(model, self._tokenizer)
        for batch in language_batches(
            data, self._tokenizer, options, longest=longest, prepend_bos=self._prepend_bos
        ):
            tokens = batch.inputs[TEXT] if isinstance(batch.inputs, Mapping) else batch.inputs
            check_tokens(tokens, size)
            yield batch

    def _images(self, data: Any, options: DataOptions) -> Iterator[Batch]:
        pictures: dict[str, Any] = {}
        if data is None or data == "embedded":
            config: Any = self._model.config
            side = config.image_size
            pictures = {
                "size": min(side if isinstance(side, int) else min(side), PHOTOGRAPH),
                "seed": options.seed,
                "crops": max(_CROPS, options.limit or 0),
            }
        for batch in image_batches(
            data,
            transform=self._picture_transform(),
            batch_size=options.batch_size,
            limit=options.limit,
            shard=options.shard,
            content=options.content,
            **pictures,
        ):
            yield Batch({IMAGES: batch.pixels}, rows=batch.rows, labels=batch.labels)

    def _picture_transform(self) -> Transform:
        if self._transform is not None:
            return self._transform
        processor = self._processor
        if processor is None:
            raise ModelError(
                f"this {type(self._model).__name__} comes without what prepares its images "
                "(preprocessor_config.json); give transform=, which makes a float tensor [3, "
                "height, width] of a PIL image"
            )

        def transform(image: Any) -> Tensor:
            made: Tensor = processor(images=image, return_tensors="pt")[IMAGES][0]
            return made

        return transform

    def example(self) -> Batch | None:
        """Two windows of the embedded text or two embedded crops; None where neither can be."""
        if self._reads == IMAGES and not (self._processor is None and self._transform is None):
            return next(iter(self.batches(None, DataOptions(batch_size=2, limit=2))))
        if self._reads != TEXT or self._tokenizer is None or _translates(self._model):
            return None
        longest = longest_of(self._model, self._tokenizer)
        context = min(DataOptions().context, longest or DataOptions().context)
        return next(iter(self.batches(None, DataOptions(batch_size=2, limit=2, context=context))))

    def describe(self) -> dict[str, Any]:
        """Adds name, the part that is read, what frames a text, and the version of transformers."""
        frame = None
        if self._tokenizer is not None and self._prepend_bos is None:
            frame = dict(zip(("before", "after"), tokenizer_frame(self._tokenizer), strict=True))
        return {
            **super().describe(),
            "name": self._name or getattr(self._model, "name_or_path", None) or None,
            "frame": frame,
            "prepend_bos": self._prepend_bos,
            "transformers": version("transformers"),
            **self._record,
        }


def _translates(model: Any) -> bool:
    """Whether this is an encoder together with its decoder."""
    return bool(model.config.is_encoder_decoder) and model.get_encoder() is not model


def _corner(example: Batch) -> Batch:
    """Two rows and the first positions of tokens: enough to see which modules fire."""

    def cut(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        value = value[:_TRACED_ROWS]
        return value[:, :_TRACED_POSITIONS] if name in (TEXT, "attention_mask") else value

    inputs = example.inputs
    if isinstance(inputs, Mapping):
        inputs = {name: cut(name, value) for name, value in inputs.items()}
    elif isinstance(inputs, Tensor):
        inputs = cut("" if inputs.is_floating_point() else TEXT, inputs)
    return Batch(inputs, rows=example.rows[:_TRACED_ROWS])
