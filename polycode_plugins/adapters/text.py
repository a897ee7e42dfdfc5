"""Texts and tokens for the adapters of language models: batches whose mask knows special tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polycode_plugins.activations import Tokens
from polycode_plugins.adapters.base import Batch
from polycode_plugins.adapters.inputs import tensor_batches
from polycode_plugins.data.incoming import Incoming, incoming
from polycode_plugins.data.text import text_documents
from polycode_plugins.data.windows import token_windows, tokenizer_frame
from polycode_plugins.data_options import DataOptions
from polycode_plugins.devices import moved
from polycode_plugins.errors import DataError, ModelError


def language_batches(
    data: Any,
    tokenizer: Any,
    options: DataOptions,
    *,
    longest: int | None,
    prepend_bos: bool | None,
) -> Iterator[Batch]:
    """Windows of text, or tokens as they are.

    Args:
        data: a file, a folder, JSON lines, `hf:name`, None for the embedded corpus; texts or
            conversations in a list, generator, data set, column, data frame or loader
            (`data.incoming`); or tokens int64 [rows, position] (or rows or batches of such), in
            which every special token of the tokenizer is left out of the statistics.
        tokenizer: one of Hugging Face's; None is an error where texts must be read.
        longest: positions the model can read.
        prepend_bos: put the beginning-of-text token before each window of text; None puts before
            and after it what the tokenizer does.

    Raises:
        DataError: for windows longer than the model reads, and for what are no texts or tokens.
        ModelError: for texts without a tokenizer.
    """
    if data is None or isinstance(data, str | Path):
        return _windows(data, tokenizer, options, longest, prepend_bos)
    given = data
    if not isinstance(data, Incoming):
        given = incoming(data, text_field=options.text_field)
    if given.kind == "texts":
        return _windows(given.items, tokenizer, options, longest, prepend_bos)
    if given.kind == "pictures":
        raise DataError("this model reads texts, and the data are pictures")
    return _tokens(given, tokenizer, options)


def usual_frame(tokenizer: Any, *, begins: bool) -> bool | None:
    """The `prepend_bos` to use where nobody says: what the model most likely was trained with.

    None, the tokenizer's own frame, where that has something after the text (encoders) or there is
    no beginning-of-text token; else whether texts begin with it, `begins`.
    """
    if getattr(tokenizer, "bos_token_id", None) is None or tokenizer_frame(tokenizer)[1]:
        return None
    return begins


def check_tokens(tokens: Tensor, size: int | None) -> None:
    """Raise DataError unless each of `tokens` is one of the `size` that a model knows."""
    if size is None or not tokens.numel():
        return
    lowest, highest = int(tokens.min()), int(tokens.max())
    if not 0 <= lowest <= highest < size:
        raise DataError(
            f"the tokens range from {lowest} to {highest}, and this model knows 0 to {size - 1}; "
            "use the tokenizer it was trained with"
        )


def special_ids(tokenizer: Any) -> list[int]:
    """The ids of a tokenizer's special tokens, ascending; none without a tokenizer."""
    return sorted(set(getattr(tokenizer, "all_special_ids", None) or []))


def token_text(tokenizer: Any) -> Callable[[int], str] | None:
    """What turns the id of one token into its text; None without a tokenizer that can."""
    if not callable(getattr(tokenizer, "decode", None)):
        return None

    @lru_cache(maxsize=4096)
    def text(token: int) -> str:
        return str(tokenizer.decode([token]))

    return text


def regular(tokens: Any, special: list[int]) -> Tensor | None:
    """bool [batch, position], False on special tokens; None for what are no tokens, or no such."""
    if not (isinstance(tokens, Tensor) and tokens.dim() == 2 and special):
        return None
    return ~torch.isin(tokens, moved(torch.tensor(special), tokens.device))


def padding(tokens: Tensor, tokenizer: Any) -> Tensor:
    """bool [batch, position], True on the run of padding at one end of each row.

    Needed where neither an attention mask nor the mask of special tokens tells. Where padding and
    the beginning of text are one token, the one next to the text is taken for the beginning.
    """
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None:
        return torch.zeros_like(tokens, dtype=torch.bool)
    left = getattr(tokenizer, "padding_side", "right") == "left"
    is_pad = torch.eq(tokens, pad).long()
    run = (is_pad if left else is_pad.flip(1)).cumprod(dim=1).bool()
    if pad == getattr(tokenizer, "bos_token_id", None):
        end = run.sum(dim=1, keepdim=True) - 1  # where the run ends, counted from the edge
        place = torch.arange(run.shape[1], device=run.device)
        run &= place != (end if left else run.shape[1] - 1)
    return run if left else run.flip(1)


def _windows(
    data: Any, tokenizer: Any, options: DataOptions, longest: int | None, prepend_bos: bool | None
) -> Iterator[Batch]:
    if tokenizer is None:
        raise ModelError(
            "this model has no tokenizer, so texts cannot be read; give the model its tokenizer, "
            "or pass tokens [rows, position]"
        )
    if longest is not None and options.context > longest:
        raise DataError(
            f"windows of {options.context} tokens are longer than the {longest} positions that "
            f"this model reads; give --context {longest} (context={longest}) or less"
        )
    text = token_text(tokenizer)
    for window in token_windows(
        text_documents(data, text_field=options.text_field),
        tokenizer,
        context=options.context,
        batch_size=options.batch_size,
        prepend_bos=bool(prepend_bos),
        frame=tokenizer_frame(tokenizer) if prepend_bos is None else None,
        include_special=options.include_special,
        limit=options.limit,
        shard=options.shard,
        content=options.content,
    ):
        yield Batch(
            {"input_ids": window.tokens, "attention_mask": window.attention_mask},
            rows=window.rows,
            documents=window.documents,
            mask=window.mask,
            tokens=Tokens(window.tokens, text),
        )


def _tokens(data: Incoming, tokenizer: Any, options: DataOptions) -> Iterator[Batch]:
    special = [] if options.include_special else special_ids(tokenizer)
    text = token_text(tokenizer)
    for batch in tensor_batches(data, options):
        tokens, real = batch.inputs, batch.mask
        if isinstance(tokens, dict):
            if "input_ids" not in tokens:
                raise DataError(
                    "a batch for a language model holds its tokens as 'input_ids', and this one "
                    f"has {', '.join(map(repr, tokens))}"
                )
            attention = tokens.get("attention_mask")
            if real is None and isinstance(attention, Tensor) and attention.dim() == 2:
                real = attention.bool()
            tokens = tokens["input_ids"]
        if not isinstance(tokens, Tensor) or tokens.is_floating_point() or tokens.dim() != 2:
            what = (
                f"{tokens.dtype} {tuple(tokens.shape)}"
                if isinstance(tokens, Tensor)
                else f"a {type(tokens).__name__}"
            )
            raise DataError(f"tokens must be integers [rows, position], and these are {what}")
        mask = regular(tokens, special)
        if real is None and options.include_special:
            real = ~padding(tokens, tokenizer)
        if real is not None:
            mask = real if mask is None else mask & real
        yield replace(batch, mask=mask, tokens=Tokens(tokens, text))
