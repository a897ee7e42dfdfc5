"""A causal language model of Hugging Face in this process, answering like a server.

It gives what few servers do: the exact log-probabilities of all eleven numbers at every token of a
prompt, and a judge that can say nothing but yes and no, with the probability of each. Its answers
have the shape of OpenAI's, so prompts, simulators and store are the same.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from polycode_plugins.adapters.pretrained import (
    check_hub,
    check_pretrained,
    check_tokenizer,
    check_weights,
    code_refused,
    device_named,
    dtype_named,
    needs_code,
    quiet,
)
from polycode_plugins.errors import ModelError
from polycode_plugins.explainers.base import LEVELS
from polycode_plugins.explainers.language_model.decoding import Decoder, Piece, Read, Row
from polycode_plugins.explainers.language_model.restrictions import Restriction
from polycode_plugins.explainers.language_model.transport.failures import Refused, RemoteError
from polycode_plugins.explainers.language_model.transport.request import CHAT, COMPLETIONS, Request
from polycode_plugins.files.weights import fingerprint
from polycode_plugins.plugins import cause, missing_extra

#: Tokens with which models of many families end a turn, beside those that their files name.
ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end_of_turn|>", "<|end|>",
    "<|endoftext|>", "<|return|>", "</s>", "<|END_OF_TURN_TOKEN|>", "<|user|>",
)  # fmt: skip


class LocalModel:
    """A backend that computes its answers.

    Requests are computed one after the other. A temperature above 0 draws from a generator seeded
    with the request's hash, so the same request has the same answer.

    Args:
        model: a folder in Hugging Face format or a name on the hub.
        device: where to run it.
        dtype: to compute in; by default float32 on a CPU, and elsewhere that of the weights.
        trust_remote_code: run code that comes with the model.

    Raises:
        ModelError: where the model cannot be loaded whole.
        PluginError: where transformers is missing.
    """

    #: How its answers can be held to a form.
    restrictions: ClassVar[tuple[Restriction, ...]] = ("parts",)

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise missing_extra("transformers", "transformer-lens", "a local model") from error
        local = check_pretrained(model)
        if not local:
            check_hub(str(model))
        options: dict[str, Any] = {"local_files_only": True} if local else {}
        options["trust_remote_code"] = trust_remote_code
        with quiet() as reports:
            try:
                self._tokenizer: Any = AutoTokenizer.from_pretrained(str(model), **options)
                self._model: Any = AutoModelForCausalLM.from_pretrained(str(model), **options)
            except Exception as error:  # transformers raises whatever its parts raise
                if not trust_remote_code and needs_code(error):
                    raise code_refused(str(model), "--set trust_remote_code=true") from error
                raise ModelError(
                    f"{str(model)!r} cannot be loaded as a causal language model: {cause(error)}"
                ) from error
        check_weights(str(model), reports)
        check_tokenizer(str(model), self._tokenizer)
        if not getattr(self._tokenizer, "is_fast", False):
            raise ModelError(
                f"the tokenizer of {str(model)!r} is not a fast one, so tokens cannot be placed in "
                "the text; save it with a tokenizer.json"
            )
        self.name = Path(model).name if local else str(model)
        self.identity = f"local:{self.name}:{str(fingerprint(self._model))[:14]}"
        if dtype is not None:
            self._model.to(dtype_named(dtype))
            self.identity += f":{dtype}"
        elif device_named(device) == "cpu":
            self._model.float()
        self._model.eval().to(device_named(device))
        self._lock = threading.Lock()
        self._words: dict[int, str] = {}
        self._numbers = self._number_tokens()
        self._decoder = Decoder(self._model, self._tokenizer, self._numbers, self._end_tokens())

    def send(self, request: Request, key: str) -> dict[str, Any]:
        """The answer as JSON; see `server.Backend`."""
        body, chat = request.body, request.endpoint == CHAT
        if not chat and request.endpoint != COMPLETIONS:
            raise RemoteError(f"{self.name!r} has no {request.endpoint}", 404)
        if chat and not getattr(self._tokenizer, "chat_template", None):
            raise RemoteError(
                f"{self.name!r} has no chat template", 404, "there is no chat template"
            )
        prompt, common = self._prompt(body, chat)
        encoded = self._tokenizer(
            prompt, return_offsets_mapping=True, add_special_tokens=not chat, verbose=False
        )
        ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
        longest = getattr(self._model.config, "max_position_embeddings", None)
        if longest is not None and len(ids) + request.most_out > longest + 1:
            raise Refused("the prompt is longer than the model can read", f"{len(ids)} tokens")
        echo, top = bool(body.get("echo")), _top(body, chat)
        # The beginning ends at a token that ends where, or before, the common text does.
        shared = sum(stop <= common for _, stop in offsets) if common else 0
        pieces: list[Piece] = []
        rows: list[Row] = []
        with self._lock:
            read = self._decoder.read(ids, shared, top if echo else 0)
            if body.get("parts"):
                pieces = self._decoder.choose(read, [_part(part) for part in body["parts"]])
                text, ended = "".join(piece.text for piece in pieces), True
                new = self._decoder.ids(text)
            else:
                new, rows, ended = self._generated(read, request, key, top)
                text = self._decoder.text(new)
        for stop in body.get("stop") or ():
            text = text.partition(stop)[0]
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop" if ended else "length"}
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
            if top:
                choice["logprobs"] = {"content": _of(pieces) or self._spoken(rows, new)}
        else:
            choice["text"] = prompt + text if echo else text
            if top:
                shown = _pieces(prompt, offsets) if echo else []
                choice["logprobs"] = self._listed(shown, [*read.rows, *rows], new)
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(new)}
        return {"model": self.name, "choices": [choice], "usage": usage}

    def _prompt(self, body: Mapping[str, Any], chat: bool) -> tuple[str, int]:
        """The text to go on from, and how much of it other requests begin with as well."""
        if not chat:
            prompt = str(body["prompt"])
            return prompt, prompt.rfind("\n\n") + 1
        messages = list(body["messages"])
        prompt = self._chat(messages)
        before = self._chat([*messages[:-1], {**messages[-1], "content": ""}])
        pairs = enumerate(zip(prompt, before, strict=False))
        return prompt, next((i for i, (a, b) in pairs if a != b), 0)

    def _chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """By the model's template; instructions go to the first question where it takes no others.

        Raises:
            Refused: where the template takes neither.
        """
        given = [dict(m) for m in messages]
        merged = given
        if given[0]["role"] == "system" and len(given) > 1:
            first = f"{given[0]['content']}\n\n{given[1]['content']}"
            merged = [{**given[1], "content": first}, *given[2:]]
        for tried in (given, merged):
            try:
                return str(
                    self._tokenizer.apply_chat_template(
                        tried, tokenize=False, add_generation_prompt=True
                    )
                )
            except Exception as error:  # templates raise whatever they like
                fault = cause(error)
        raise Refused(f"the server refused the request (chat template: {fault})")

    def _generated(
        self, read: Read, request: Request, key: str, top: int
    ) -> tuple[list[int], list[Row], bool]:
        body = request.body
        return self._decoder.generate(
            read,
            request.most_out,
            temperature=float(body.get("temperature", 1)),
            seed=int(key[:15], 16),
            stops=tuple(body.get("stop") or ()),
            top=top,
        )

    def _listed(self, shown: list[str], rows: Sequence[Row], new: list[int]) -> dict[str, Any]:
        """Tokens, their log-probabilities, the likeliest and all numbers; the first has none."""
        listed: list[dict[str, float] | None] = [
            {self._word(i): v for i, v in row.listed.items()} for row in rows
        ]
        own: list[float | None] = [row.own for row in rows]
        first: list[None] = [None] * bool(shown)
        return {
            "tokens": [*shown, *map(self._word, new)],
            "token_logprobs": [*first, *own],
            "top_logprobs": [*first, *listed],
        }

    def _spoken(self, rows: Sequence[Row], new: Sequence[int]) -> list[dict[str, Any]]:
        """The tokens of an answer with their log-probabilities, without the one that ends it."""
        return [
            _position(self._word(token), row.own, {self._word(i): v for i, v in row.listed.items()})
            for token, row in zip(new, rows, strict=True)
            if not self._decoder.ends(token)
        ]

    def _word(self, token: int) -> str:
        if token not in self._words:
            number = self._numbers.get(token)
            self._words[token] = str(self._tokenizer.decode([token])) if number is None else number
        return self._words[token]

    def _number_tokens(self) -> dict[int, str]:
        """The numbers 0-10 that are one token after a tab, {token: number}."""
        plain = self._tokenizer("\t", add_special_tokens=False)["input_ids"]
        found = {}
        for value in range(LEVELS + 1):
            ids = self._tokenizer(f"\t{value}", add_special_tokens=False)["input_ids"]
            if ids[:-1] == plain:
                found[int(ids[-1])] = str(value)
        return found

    def _end_tokens(self) -> set[int]:
        """Every token that ends a turn: of the files, and of the usual ones those it has."""
        named = [self._tokenizer.eos_token_id]
        for config in (self._model.config, getattr(self._model, "generation_config", None)):
            ids = getattr(config, "eos_token_id", None)
            named += ids if isinstance(ids, list | tuple) else [ids]
        added = self._tokenizer.get_added_vocab()
        return {int(i) for i in named if i is not None} | {added[t] for t in ENDS if t in added}


def _top(body: Mapping[str, Any], chat: bool) -> int:
    """Likeliest tokens that are asked for at each place, in either endpoint's manner."""
    if chat:
        return int(body.get("top_logprobs") or 1) if body.get("logprobs") else 0
    return int(body.get("logprobs") or 0)


def _of(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """The pieces of a form as positions: what is fixed has no log-probability."""
    return [
        _position(p.text, None if p.among is None else p.among[p.text], p.among) for p in pieces
    ]


def _position(token: str, logprob: float | None, top: Mapping[str, float] | None) -> dict[str, Any]:
    listed = top and [{"token": word, "logprob": value} for word, value in top.items()]
    return {"token": token, "logprob": logprob, "top_logprobs": listed}


def _part(part: Any) -> Any:
    return part if isinstance(part, str) else tuple(part)


def _pieces(prompt: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """The text of each token; one that goes on with a letter begun before is empty."""
    pieces, end = [], 0
    for _, stop in offsets:
        pieces.append(prompt[end : max(end, stop)])
        end = max(end, stop)
    return pieces
