"""The `transformer-lens` adapter: TransformerBridge (4.x) and HookedTransformer (2.x, 3.x).

Both are read through what they share (`hook_dict`, HookPoint.add_hook), so one code path serves
both majors. Nothing of TransformerLens is imported unless a model has to be loaded by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Adapter, Batch, Capture, DataOptions, Sink
from polycode_plugins.adapters.hooks import in_backward
from polycode_plugins.adapters.module import device_of
from polycode_plugins.adapters.text import language_batches, regular, special_ids
from polycode_plugins.errors import ModelError, SiteError
from polycode_plugins.plugins import cause, missing_extra

# The order in which the parts of a block run; hook_dict lists aliases after everything else.
_STAGES = (
    "hook_in",
    "hook_resid_pre",
    "hook_attn_in",
    "hook_q_input",
    "hook_k_input",
    "hook_v_input",
    "ln1",
    "attn",
    "hook_attn_out",
    "ln1_post",
    "hook_resid_mid",
    "hook_mlp_in",
    "ln2",
    "mlp",
    "hook_mlp_out",
    "ln2_post",
    "hook_resid_post",
    "hook_out",
)
_HEAD = ("embed", "hook_embed", "pos_embed", "hook_pos_embed", "hook_tokens")
_NOT_UNITS = re.compile(r"(pattern|attn_scores|hook_rot_|hook_(cos|sin))")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


class TransformerLensAdapter(Adapter):
    """A TransformerLens model.

    Args:
        model: a live TransformerBridge or HookedTransformer, the name of a model on the Hugging
            Face hub ("gpt2-xl"), or a folder in Hugging Face format with its tokenizer.
        device: where to load a model given by name or folder; TransformerLens chooses by default.
        dtype: of a model given by name or folder, as a name such as "float32" or "bfloat16".
        prepend_bos: put the beginning-of-text token before each window; the model's own default
            when None. It never enters the statistics unless special tokens are asked for.

    Raises:
        ModelError: for a name or folder that does not load, or a folder without a tokenizer (which
            TransformerLens would accept with an empty one).
    """

    name = "transformer-lens"

    def __init__(
        self,
        model: Any,
        *,
        device: str | None = None,
        dtype: str = "float32",
        prepend_bos: bool | None = None,
    ) -> None:
        self._name = None
        if isinstance(model, str | Path):
            self._name = str(model)
            model = _boot(model, device, dtype)
        if not self.accepts(model):
            raise ModelError(
                f"{type(model).__name__} is not a TransformerLens model (no hook_dict and "
                "run_with_hooks); use the 'module' adapter for a plain nn.Module"
            )
        self._model = model
        self._prepend_bos = prepend_bos

    @classmethod
    def accepts(cls, model: object) -> bool:
        """A model with `hook_dict`, `hooks` and `run_with_hooks`, whatever its class."""
        return isinstance(model, nn.Module) and all(
            hasattr(model, name) for name in ("hook_dict", "hooks", "run_with_hooks")
        )

    @property
    def model(self) -> Any:
        """The live model."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, or None."""
        return getattr(self._model, "tokenizer", None)

    # -- sites -----------------------------------------------------------------------------------

    def sites(self, example: Batch | None = None) -> list[Site]:
        """All hook points, canonical names and aliases, in firing order."""
        points = self._model.hook_dict
        order = sorted(points, key=_order)
        return [
            Site(name, depth, source=str(getattr(points[name], "name", None) or name))
            for depth, name in enumerate(order)
            if not _NOT_UNITS.search(name)
        ]

    def default_sites(self, sites: Sequence[Site]) -> list[str]:
        """The residual stream after each block."""
        names = {s.name for s in sites}
        blocks = sorted(
            (n for n in names if re.fullmatch(r"blocks\.\d+\.hook_resid_post", n)), key=_order
        )
        return blocks or super().default_sites(sites)

    def _unknown(self, pattern: str, available: Sequence[Site]) -> str:
        if _NOT_UNITS.search(pattern):
            return (
                f"{pattern!r} holds attention weights or rotations [.., query, key], not the "
                "activations of units; choose for example hook_z, hook_result or hook_resid_post"
            )
        return super()._unknown(pattern, available)

    # -- capture ---------------------------------------------------------------------------------

    @contextmanager
    def capture(self, sites: Sequence[Site], sink: Sink) -> Iterator[Capture]:
        """Permanent hooks (so that nobody's reset_hooks drops them) on the sites while open.

        In somebody else's workflow the special tokens are found where they enter the embedding.
        """
        points = self._model.hook_dict
        live = Capture(sites, sink)
        seen = _Tokens(self.tokenizer)
        with ExitStack() as stack:
            embed = getattr(self._model, "embed", None)
            if isinstance(embed, nn.Module):
                handle = embed.register_forward_pre_hook(seen.note)
                stack.callback(handle.remove)
            for site in sites:
                stack.enter_context(_hooked(points[site.name], partial(_receive, live, site, seen)))
            yield live

    def forward(self, batch: Batch, stop_after: Site | None = None) -> None:
        """Run on tokens [batch, position]; stops after the block of the last site."""
        tokens = batch.inputs
        attention = None
        if isinstance(tokens, dict):
            tokens, attention = tokens["input_ids"], tokens.get("attention_mask")
        device = device_of(self._model)
        kwargs: dict[str, Any] = {"return_type": None}
        # Without padding the mask says nothing, and without it the model takes its fast path.
        if attention is not None and not bool(attention.all()):
            kwargs["attention_mask"] = attention.to(device)
        layer = _block(stop_after.name) if stop_after is not None else None
        if layer is not None:
            kwargs["stop_at_layer"] = layer + 1
        self._model(tokens.to(device), **kwargs)

    # -- data ------------------------------------------------------------------------------------

    def batches(self, data: Any, options: DataOptions) -> Iterable[Batch]:
        """Windows of text, or tokens as they are.

        Args:
            data: a file, a folder, JSON lines, `hf:name`, a list of texts, None for the embedded
                corpus; or tokens int64 [rows, position] (or an iterable of such batches), in which
                every special token of the tokenizer is left out of the statistics.
        """
        prepend = self._prepend_bos
        if prepend is None:
            prepend = bool(getattr(self._model.cfg, "default_prepend_bos", True))
        return language_batches(
            data,
            self.tokenizer,
            options,
            longest=int(getattr(self._model.cfg, "n_ctx", options.context)),
            prepend_bos=prepend,
        )

    def describe(self) -> dict[str, Any]:
        """Adds name, size, version and compatibility mode (it changes hook_resid_post)."""
        cfg = self._model.cfg
        return {
            **super().describe(),
            "name": self._name or getattr(cfg, "model_name", None),
            "layers": getattr(cfg, "n_layers", None),
            "width": getattr(cfg, "d_model", None),
            "compatibility_mode": bool(getattr(self._model, "compatibility_mode", False)),
            "normalization": getattr(cfg, "normalization_type", None),
            "transformer_lens": _version(),
        }


class _Tokens:
    """The tokens that last entered the embedding, and which of them count."""

    def __init__(self, tokenizer: Any) -> None:
        self.special = special_ids(tokenizer)
        self.mask: Tensor | None = None

    def note(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self.mask = regular(args[0] if args else None, self.special)


def _receive(live: Capture, site: Site, seen: _Tokens, values: Any) -> None:
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise SiteError(f"{site.name!r} holds {type(values).__name__}, not floating-point values")
    if values.dim() == 4:
        axes: tuple[str, ...] = ("batch", "position", "head", "feature")
    elif values.dim() == 3:
        axes = ("batch", "position", "feature")
    else:
        raise SiteError(
            f"{site.name!r} has shape {tuple(values.shape)}; activations of a transformer are "
            "[batch, position, feature] or [batch, position, head, feature]"
        )
    live.receive(site, values, axes, mask=seen.mask if live.batch is None else None)


@contextmanager
def _hooked(point: Any, hook: Any) -> Iterator[None]:
    """Our hook on one HookPoint, run last, and only our hook removed in the end.

    `remove_hooks` cannot do that: in 3.x it drops every permanent hook, the user's too.
    """

    def look(tensor: Any, *, hook: Any, _inner: Any = hook) -> None:
        if not in_backward():  # what checkpointing computes again has been seen
            _inner(tensor)

    point.add_hook(look, is_permanent=True)
    handle = point.fwd_hooks[-1]

    def go_last(_module: nn.Module, _args: Any) -> None:
        # A hook added after ours (an ablation, say) must not change the value behind our back.
        if handle.hook.id in point._forward_hooks:
            point._forward_hooks.move_to_end(handle.hook.id)

    order = point.register_forward_pre_hook(go_last)
    try:
        yield
    finally:
        order.remove()
        handle.hook.remove()
        point.fwd_hooks = [h for h in point.fwd_hooks if h is not handle]


def _boot(model: str | Path, device: str | None, dtype: str) -> Any:
    """Load a hub name or a local folder with whatever TransformerLens is installed."""
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype):
        raise ModelError(f"unknown dtype {dtype!r}; use float32, bfloat16 or float16")
    folder = Path(model)
    is_folder = folder.is_dir()
    if is_folder:
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"the folder {str(model)!r} has no config.json, so it is not a model in Hugging "
                "Face format; save one with save_pretrained"
            )
        if not any((folder / f).is_file() for f in _TOKENIZER_FILES):
            raise ModelError(
                f"the folder {str(model)!r} has no tokenizer files; save the tokenizer there too "
                "(tokenizer.save_pretrained), since every text would be read as nothing"
            )
    elif "/" in str(model) and (
        str(model).startswith((".", "/", "~")) or str(model).count("/") > 1
    ):
        raise ModelError(f"the folder {str(model)!r} does not exist; check the path")
    try:
        import transformer_lens
    except ModuleNotFoundError as error:
        raise missing_extra(
            "transformer-lens", "transformer-lens", "loading a model by name"
        ) from error
    kwargs: dict[str, Any] = {} if device is None else {"device": device}
    try:
        if int(_version().partition(".")[0]) >= 4:
            from transformer_lens.model_bridge import TransformerBridge

            return TransformerBridge.boot_transformers(str(model), dtype=torch_dtype, **kwargs)
        if is_folder:
            raise ModelError(
                "TransformerLens below 4 loads no local folders; load the model yourself and pass "
                "the HookedTransformer, or install transformer-lens>=4"
            )
        return transformer_lens.HookedTransformer.from_pretrained(
            str(model), dtype=torch_dtype, **kwargs
        )
    except ModelError:
        raise
    except Exception as error:  # the hub, the file system and the parsers raise their own
        raise ModelError(
            f"the model {str(model)!r} does not load ({cause(error)[:300]}); it must be the name "
            "of a model on the Hugging Face hub that can be reached, or an existing local folder"
        ) from error


def _order(name: str) -> tuple[int, int, str]:
    if name.startswith("blocks."):
        _, index, rest = name.split(".", 2)
        part = rest.partition(".")[0]
        stage = _STAGES.index(part) if part in _STAGES else len(_STAGES) - 3
        return int(index), stage, rest
    return (-1, 0, name) if name.startswith(_HEAD) else (10**6, 0, name)


def _block(name: str) -> int | None:
    """The block a site belongs to; -1 before the first, None after the last."""
    block = _order(name)[0]
    return None if block == 10**6 else block


def _version() -> str:
    try:
        return version("transformer-lens")
    except Exception:  # an overlay on the path may come without metadata
        return "0"
