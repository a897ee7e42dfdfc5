"""Going on from a prompt with a causal language model: exact log-probabilities, and fixed forms.

The part of a prompt that many requests begin with is computed once and kept. Where it ends depends
on the request alone, so that an answer is the same to the last digit whatever was asked before.
"""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polycode_plugins.explainers.language_model.restrictions import Part
from polycode_plugins.explainers.language_model.transport.failures import Refused

PREFIXES = 4  # beginnings that are kept
_ROWS = 256  # positions whose probabilities over the vocabulary are held at once


@dataclass(frozen=True)
class Row:
    """What is expected at one place: the log-probability of its token, and some others'."""

    own: float
    listed: dict[int, float]


@dataclass(frozen=True)
class Piece:
    """A part of a form: its text, and the log-probability of each choice where it is one of some.

    Of a choice of several tokens, it is that of the first in which the choices differ.
    """

    text: str
    among: dict[str, float] | None = None


@dataclass
class Read:
    """A text that was read: what follows it, and the state to go on from."""

    rows: list[Row]  # of every token but the first
    last: Tensor  # float32 [vocabulary], log-probabilities of the token that follows
    cache: Any
    length: int


class Decoder:
    """One model and what it has read.

    Args:
        model: of transformers, in evaluation mode.
        tokenizer: its own.
        numbers: tokens whose log-probability is always listed.
        ends: tokens that end an answer.
    """

    def __init__(
        self, model: Any, tokenizer: Any, numbers: Collection[int], ends: Collection[int]
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._numbers = torch.tensor(sorted(numbers), dtype=torch.long)
        self._ends = frozenset(ends)
        self._kept: OrderedDict[tuple[Any, ...], Read] = OrderedDict()

    @torch.no_grad()
    def read(self, ids: Sequence[int], shared: int, top: int) -> Read:
        """Read a prompt, of which the first `shared` tokens are those of other prompts too.

        Args:
            ids: of the prompt's tokens.
            shared: 0 for none.
            top: likeliest tokens to list at each place; 0 lists nothing.
        """
        if not 0 < shared < len(ids):
            return self._forward(list(ids), None, top)
        name = (top, *ids[:shared])
        if name not in self._kept:
            self._kept[name] = self._forward(list(ids[:shared]), None, top)
        self._kept.move_to_end(name)
        while len(self._kept) > PREFIXES:
            self._kept.popitem(last=False)
        return self._forward(list(ids[shared:]), self._kept[name], top)

    def _forward(self, ids: list[int], before: Read | None, top: int) -> Read:
        device = next(self._model.parameters()).device
        past = None if before is None else copy.deepcopy(before.cache)
        out = self._model(
            input_ids=torch.tensor([ids], device=device), past_key_values=past, use_cache=True
        )
        logits = out.logits[0]
        last = torch.log_softmax(logits[-1].float(), dim=-1).cpu()
        rows = [] if before is None else [*before.rows]
        if top:
            if before is not None:
                rows += self._rows(before.last[None], ids[:1], top)
            for start in range(0, len(ids) - 1, _ROWS):
                part = torch.log_softmax(logits[start : start + _ROWS].float(), dim=-1).cpu()
                rows += self._rows(part, ids[start + 1 : start + 1 + _ROWS], top)
        length = len(ids) + (0 if before is None else before.length)
        return Read(rows, last, out.past_key_values, length)

    def _rows(self, before: Tensor, ids: Sequence[int], top: int) -> list[Row]:
        """Rows of tokens, by the log-probabilities [tokens or more, vocabulary] before each."""
        before = before[: len(ids)]
        values, places = before.topk(min(top, before.shape[-1]), dim=-1)
        numbers = before[:, self._numbers]
        return [
            Row(
                float(whole[token]),
                dict(zip(place.tolist(), value.tolist(), strict=True))
                | dict(zip(self._numbers.tolist(), number.tolist(), strict=True)),
            )
            for whole, token, value, place, number in zip(
                before, ids, values, places, numbers, strict=True
            )
        ]

    @torch.no_grad()
    def generate(
        self, read: Read, limit: int, *, temperature: float, seed: int, stops: Sequence[str],
        top: int,
    ) -> tuple[list[int], list[Row], bool]:  # fmt: skip
        """New tokens with their rows, and whether they ended by themselves.

        Args:
            read: the prompt; its state is used up.
            limit: tokens at most.
            temperature: 0 takes the likeliest.
            seed: of what is drawn above 0.
            stops: texts that end the answer.
            top: as in `read`.
        """
        draw = torch.Generator().manual_seed(seed)
        new: list[int] = []
        rows: list[Row] = []
        while len(new) < limit:
            last = read.last
            if temperature > 0:
                chosen = int(torch.multinomial((last / temperature).softmax(-1), 1, generator=draw))
            else:
                chosen = int(last.argmax())
            rows += self._rows(last[None], [chosen], top) if top else []
            if chosen in self._ends:
                # Where probabilities are asked for, those at the end are an answer too.
                return (new + [chosen] * bool(top)), rows, True
            new.append(chosen)
            if stops and any(stop in self._tokenizer.decode(new[-8:]) for stop in stops):
                return new, rows, True
            if len(new) < limit:
                read = self._step(read, [chosen])
        return new, rows, False

    @torch.no_grad()
    def choose(self, read: Read, parts: Sequence[Part]) -> list[Piece]:
        """The likeliest text of a form in pieces, each choice after those before it.

        Raises:
            Refused: where two choices begin with the same token.
        """
        pieces: list[Piece] = []
        text, fed = "", 0
        for part in parts:
            if isinstance(part, str):
                text += part
                pieces.append(Piece(part))
                continue
            options = [self.ids(text + option) for option in part]
            shared = _alike(options)
            first = [o[shared] for o in options if len(o) > shared]
            if len(set(first)) < len(options) or shared < fed:
                raise Refused("the server refused the request (choices that share a token)")
            if shared > fed:
                read = self._step(read, options[0][fed:shared])
                fed = shared
            among = dict(zip(part, read.last[first].tolist(), strict=True))
            best = max(part, key=among.__getitem__)
            text += best
            pieces.append(Piece(best, among))
        return pieces

    def ends(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return token in self._ends

    def ids(self, text: str) -> list[int]:
        """The tokens of a text that goes on from something."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, ids: Sequence[int]) -> str:
        """The text of new tokens, without those that end it."""
        kept = [i for i in ids if i not in self._ends]
        return str(self._tokenizer.decode(kept, clean_up_tokenization_spaces=False))

    def _step(self, read: Read, ids: list[int]) -> Read:
        device = next(self._model.parameters()).device
        out = self._model(
            input_ids=torch.tensor([ids], device=device),
            past_key_values=read.cache,
            use_cache=True,
        )
        last = torch.log_softmax(out.logits[0, -1].float(), dim=-1).cpu()
        return Read(read.rows, last, out.past_key_values, read.length + len(ids))


def _alike(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens these begin with alike."""
    same = (len(set(tokens)) == 1 for tokens in zip(*sequences, strict=False))
    return sum(itertools.takewhile(bool, same))
