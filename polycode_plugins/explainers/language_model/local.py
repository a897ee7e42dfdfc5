"""A causal language model of Hugging Face in this process, answering like a server.

It gives what few servers do: the exact log-probabilities of all eleven numbers at every token of a
prompt. Its answers have the shape of OpenAI's, so prompts, simulators and store are the same.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polycode_plugins.adapters.pretrained import (
    check_hub,
    check_pretrained,
    check_tokenizer,
    check_weights,
    device_named,
    quiet,
)
from polycode_plugins.errors import ModelError
from polycode_plugins.explainers.base import LEVELS
from polycode_plugins.explainers.language_model.failures import Refused, RemoteError
from polycode_plugins.explainers.language_model.request import CHAT, Request
from polycode_plugins.files.provenance import fingerprint
from polycode_plugins.plugins import cause, missing_extra


class LocalModel:
    """A backend that computes its answers.

    Requests are computed one after the other. A temperature above 0 draws from a generator seeded
    with the request's hash, so the same request has the same answer.

    Args:
        model: a folder in Hugging Face format or a name on the hub.
        device: where to run it.

    Raises:
        ModelError: where the model cannot be loaded whole.
        PluginError: where transformers is missing.
    """

    def __init__(self, model: str | Path, *, device: str = "cpu") -> None:
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise missing_extra("transformers", "transformer-lens", "a local model") from error
        local = check_pretrained(model)
        if not local:
            check_hub(str(model))
        options: dict[str, Any] = {"local_files_only": True} if local else {}
        with quiet() as reports:
            try:
                self._tokenizer: Any = AutoTokenizer.from_pretrained(str(model), **options)
                self._model: Any = AutoModelForCausalLM.from_pretrained(str(model), **options)
            except Exception as error:  # transformers raises whatever its parts raise
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
        self._model.eval().to(device_named(device))
        self._device = device
        self._lock = threading.Lock()
        self._words: dict[int, str] = {}
        self.name = Path(model).name if local else str(model)
        self.identity = f"local:{self.name}:{str(fingerprint(self._model))[:12]}"
        self._numbers = self._number_tokens()

    def send(self, request: Request, key: str) -> dict[str, Any]:
        """The answer as JSON; see `server.Backend`."""
        body = request.body
        chat = request.endpoint == CHAT
        if chat and not getattr(self._tokenizer, "chat_template", None):
            raise RemoteError(f"{self.name!r} has no chat template", 404)
        prompt = self._chat(body["messages"]) if chat else str(body["prompt"])
        encoded = self._tokenizer(
            prompt, return_offsets_mapping=True, add_special_tokens=not chat, verbose=False
        )
        ids = torch.tensor([encoded["input_ids"]], device=self._device)
        longest = getattr(self._model.config, "max_position_embeddings", None)
        if longest is not None and ids.shape[1] + request.most_out > longest + 1:
            raise Refused("the prompt is longer than the model can read", f"{ids.shape[1]} tokens")
        top = 0 if chat else int(body.get("logprobs") or 0)
        seed = int(key[:15], 16)
        with self._lock, torch.no_grad():
            new, logprobs = self._generate(ids, request, seed)
        text = "".join(self._word(i) for i in new)
        for stop in body.get("stop") or ():
            text = text.partition(stop)[0]
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop" if not new else "length"}
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
            if body.get("logprobs"):
                raise Refused("the server refused the request: no log-probabilities of chat")
        else:
            echo = bool(body.get("echo"))
            choice["text"] = prompt + text if echo else text
            if top:
                choice["logprobs"] = self._listed(
                    prompt if echo else "", encoded["offset_mapping"] if echo else [],
                    ids[0].tolist() if echo else [], new, logprobs, top,
                )  # fmt: skip
        usage = {"prompt_tokens": ids.shape[1], "completion_tokens": len(new)}
        return {"model": self.name, "choices": [choice], "usage": usage}

    def _chat(self, messages: Sequence[dict[str, str]]) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        )

    def _generate(self, ids: Tensor, request: Request, seed: int) -> tuple[list[int], Tensor]:
        """New tokens, and log-probabilities [prompt + new, vocabulary] of the token after each."""
        body = request.body
        temperature = float(body.get("temperature", 1))
        draw = torch.Generator().manual_seed(seed)
        found = self._model(input_ids=ids, use_cache=True)
        rows = [torch.log_softmax(found.logits[0].float(), dim=-1).cpu()]
        new: list[int] = []
        stops = tuple(body.get("stop") or ())
        for left in range(request.most_out, 0, -1):
            last = rows[-1][-1]
            if temperature > 0:
                chosen = int(torch.multinomial((last / temperature).softmax(-1), 1, generator=draw))
            else:
                chosen = int(last.argmax())
            if chosen == self._tokenizer.eos_token_id:
                break
            new.append(chosen)
            if left == 1 or any(stop in self._word(chosen) for stop in stops):
                break
            step = torch.tensor([[chosen]], device=self._device)
            found = self._model(
                input_ids=step, past_key_values=found.past_key_values, use_cache=True
            )
            rows.append(torch.log_softmax(found.logits[0].float(), dim=-1).cpu())
        return new, torch.cat(rows)

    def _listed(
        self, prompt: str, offsets: Sequence[tuple[int, int]], ids: list[int], new: list[int],
        logprobs: Tensor, top: int,
    ) -> dict[str, Any]:  # fmt: skip
        """Tokens, their log-probabilities, the likeliest and all numbers; the first has none."""
        tokens, end = [], 0
        for _, stop in offsets:  # a token that goes on with a letter begun before is empty
            tokens.append(prompt[end : max(end, stop)])
            end = max(end, stop)
        tokens += [self._word(i) for i in new]
        every = ids + new
        before = logprobs[: len(every) - 1] if ids else logprobs[-len(new) :]
        first = 1 if ids else 0
        values, places = before.topk(min(top, before.shape[-1]), dim=-1)
        numbers = torch.tensor(list(self._numbers), dtype=torch.long)
        listed = [
            {self._word(int(i)): float(v) for v, i in zip(row, place, strict=True)}
            | {self._numbers[int(i)]: float(one[i]) for i in numbers}
            for row, place, one in zip(values, places, before, strict=True)
        ]
        own = [float(one[i]) for one, i in zip(before, every[first:], strict=True)]
        return {
            "tokens": tokens,
            "token_logprobs": [None] * first + own,
            "top_logprobs": [None] * first + listed,
        }

    def _word(self, token: int) -> str:
        if token not in self._words:
            self._words[token] = str(self._tokenizer.decode([token]))
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
