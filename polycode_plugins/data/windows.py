"""Windows of tokens: documents cut to a model's input, with a mask that says what to measure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from polycode_plugins.data.text import Document
from polycode_plugins.errors import DataError
from polycode_plugins.files.content import ContentDigest
from polycode_plugins.row_names import Repeats


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """A batch of windows.

    `tokens` [batch, position], int64: token ids; padding at the right holds the pad token.
    `mask` [batch, position], bool: the positions to measure; see `token_windows`.
    `attention_mask` [batch, position], int64: 1 on the begin-of-text and document tokens, 0 on
      padding; what Hugging Face models take under this name.
    `documents` [batch], int64: the id of each window's document, of equal documents the first's.
    `rows` [batch], int64: each window's place in the whole input, the same for any batch size and
      any number of shards.
    """

    tokens: Tensor
    mask: Tensor
    attention_mask: Tensor
    documents: Tensor
    rows: Tensor


@dataclass(frozen=True)
class _Window:
    row: int
    document: int
    ids: list[int]


def token_windows(
    documents: Iterable[Document],
    tokenizer: Any,
    *,
    context: int = 64,
    batch_size: int = 16,
    prepend_bos: bool = True,
    frame: tuple[Sequence[int], Sequence[int]] | None = None,
    include_special: bool = False,
    limit: int | None = None,
    shard: tuple[int, int] = (0, 1),
    content: ContentDigest | None = None,
) -> Iterator[TokenBatch]:
    """Cut `documents` into windows of `context` positions and yield them in batches, lazily.

    A document fills consecutive windows; its last one is padded at the right. No window holds two
    documents. With `prepend_bos` each begins with the tokenizer's begin-of-text token (the
    end-of-text token where a tokenizer has only that, as GPT-2's relatives do) and `context - 1`
    tokens follow. A `frame` says instead which tokens stand before and after the text of each
    window (`tokenizer_frame` is what the tokenizer puts there: [CLS] and [SEP] for BERT's).

    A conversation is written out by the tokenizer's chat template and cut like any other text.

    The mask is False on padding always, and on the frame and special tokens that a text spells out
    (such as `<|endoftext|>`) unless `include_special`.

    `limit` is the number of windows over all shards. `shard=(rank, world)` keeps the windows whose
    row is `rank` modulo `world`; the shards together are the windows of `(0, 1)`. Every shard
    tokenizes every document, which costs little beside a model's forward pass. A shard can be empty
    where there are fewer windows than shards.

    The tokens of all shards' windows are added to `content`.

    `tokenizer` is one of Hugging Face's (`transformers`, or `tokenizers` without `prepend_bos`).

    Raises `DataError` for arguments out of range, a tokenizer without the tokens needed, and an
    input that is used up before it fills one window.
    """
    taken = prepend_bos if frame is None else len(frame[0]) + len(frame[1])
    if context < 1 + taken:
        raise DataError(
            f"a window of {context} positions has no room for a token"
            f"{_beside(taken, frame)}; give --context {1 + taken} or more"
        )
    for name, value in (("batch size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise DataError(
                f"the {name} is {value}, but must be at least 1; give a positive number"
            )
    rank, world = shard
    if not 0 <= rank < world:
        raise DataError(
            f"shard {rank} of {world} does not exist; give a rank from 0 to the world size less 1"
        )
    if frame is None:
        frame = ([_begin(tokenizer)] if prepend_bos else [], [])
        layout = _Layout(tokenizer, context, frame, include_special, _beside(prepend_bos, None))
    else:
        layout = _Layout(tokenizer, context, frame, include_special, _beside(taken, frame))
    windows: Iterator[_Window] = itertools.islice(_windows(documents, tokenizer, layout), limit)
    if content is not None:
        content.add_value([frame, layout.special, layout.pad])
        windows = _noted(windows, content)
    enough = _long_enough(windows, layout, limit)
    own = (window for window in enough if window.row % world == rank)
    return (layout.batch(rows) for rows in _chunks(own, batch_size))


class _Layout:
    """How the ids of a window become a row of tensors."""

    def __init__(
        self,
        tokenizer: Any,
        context: int,
        frame: tuple[Sequence[int], Sequence[int]],
        include_special: bool,
        beside: str,
    ) -> None:
        self.context = context
        self.before, self.after = map(list, frame)
        self.room = context - len(self.before) - len(self.after)
        self.beside = beside
        self.include_special = include_special
        self.special = torch.tensor(getattr(tokenizer, "all_special_ids", []), dtype=torch.int64)
        self.pad = 0  # masked, so that any id does
        for name in ("eos_token_id", "pad_token_id"):
            found = getattr(tokenizer, name, None)
            self.pad = self.pad if found is None else int(found)

    def batch(self, windows: list[_Window]) -> TokenBatch:
        shape = len(windows), self.context
        tokens = torch.full(shape, self.pad, dtype=torch.int64)
        attention = torch.zeros(shape, dtype=torch.int64)
        for i, window in enumerate(windows):
            ids = self.before + window.ids + self.after
            tokens[i, : len(ids)] = torch.tensor(ids)
            attention[i, : len(ids)] = 1
        mask = attention.bool()
        if not self.include_special:
            mask &= ~torch.isin(tokens, self.special)
            mask[:, : len(self.before)] = False
            for row, window in zip(mask, windows, strict=True):
                end = len(self.before) + len(window.ids)
                row[end : end + len(self.after)] = False
        return TokenBatch(
            tokens=tokens,
            mask=mask,
            attention_mask=attention,
            documents=torch.tensor([window.document for window in windows]),
            rows=torch.tensor([window.row for window in windows]),
        )


def _windows(documents: Iterable[Document], tokenizer: Any, layout: _Layout) -> Iterator[_Window]:
    row, room, before = 0, layout.room, layout.before
    repeats = Repeats()
    for document in documents:
        first = repeats.first(xxhash.xxh3_64_intdigest(document.text.encode()), document.id)
        if document.messages is None:
            ids = _encode(tokenizer, document.text)
        else:
            ids = _encode_messages(tokenizer, document)
            if before and ids[: len(before)] == before:  # a template may begin the text itself
                ids = ids[len(before) :]
        for start in range(0, len(ids), room):
            yield _Window(row, first, ids[start : start + room])
            row += 1


def _noted(windows: Iterator[_Window], content: ContentDigest) -> Iterator[_Window]:
    """The windows, each of which is added to `content`."""
    for window in windows:
        content.add(str(window.document).encode())
        content.add(np.array(window.ids, dtype=np.int64).tobytes())
        yield window


def _long_enough(
    windows: Iterable[_Window], layout: _Layout, limit: int | None
) -> Iterator[_Window]:
    """Hold windows back until they amount to a full one, so that too short an input yields none."""
    held: list[_Window] = []
    read = 0
    for window in windows:
        read += len(window.ids)
        held.append(window)
        if read >= layout.room:
            yield from held
            held = []
    if limit is not None and len(held) == limit:  # cut short by the caller, not by the input
        yield from held
    elif read < layout.room:
        raise DataError(
            f"the whole input has {read} tokens, fewer than one window of {layout.room}"
            f"{layout.beside}; give more text or a smaller --context"
        )


def _chunks(windows: Iterator[_Window], size: int) -> Iterator[list[_Window]]:
    while chunk := list(itertools.islice(windows, size)):
        yield chunk


def tokenizer_frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts before and after a text: ([CLS], [SEP]) for BERT's.

    Both are empty for a tokenizer that adds nothing, and for one that frames a text in a way that
    depends on it.
    """
    bare = _encode(tokenizer, "a b")
    if not callable(tokenizer) or not bare:
        return [], []
    whole = list(tokenizer("a b", add_special_tokens=True, verbose=False)["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def _beside(taken: int, frame: object) -> str:
    """What shares a window with its text, for messages."""
    if frame is None:
        return " after the begin-of-text token" if taken else ""
    return f" beside the tokenizer's {taken} special tokens" if taken else ""


def _begin(tokenizer: Any) -> int:
    for name in ("bos_token_id", "eos_token_id"):
        token = getattr(tokenizer, name, None)
        if token is not None:
            return int(token)
    raise DataError(
        f"the tokenizer ({type(tokenizer).__name__}) has neither a begin-of-text nor an "
        f"end-of-text token to prepend; pass prepend_bos=False"
    )


def _encode(tokenizer: Any, text: str) -> list[int]:
    """The ids of `text` and of nothing else (no special tokens added, no truncation)."""
    if callable(tokenizer):
        # verbose: texts longer than the model's context are expected here, they are cut below.
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if hasattr(tokenizer, "encode"):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        return list(getattr(encoded, "ids", encoded))
    raise DataError(
        f"{type(tokenizer).__name__} is not a tokenizer (it cannot be called and has no 'encode'); "
        f"give a Hugging Face tokenizer"
    )


def _encode_messages(tokenizer: Any, document: Document) -> list[int]:
    """The ids of a conversation as the tokenizer's chat template writes it."""
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"{document.origin} is a conversation, and this tokenizer has no chat template to "
            "write it with; give texts, or a model that was trained on conversations"
        )
    try:
        written = tokenizer.apply_chat_template(list(document.messages or ()), tokenize=False)
    except Exception as error:  # a template is a program, and raises what it likes
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"the tokenizer's chat template does not take the conversation at {document.origin} "
            f"({why}); check its roles and their order"
        ) from error
    return _encode(tokenizer, written)
