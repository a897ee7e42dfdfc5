"""What a backend gives for one model, as the probe found it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.language_model.answers.log_probabilities import Truth
from polycode_plugins.explainers.language_model.restrictions import Restriction
from polycode_plugins.explainers.language_model.transport.failures import RemoteError

Method = Literal["prompt-logprobs", "generated-logprobs", "token-by-token", "text"]
METHODS: tuple[Method, ...] = ("prompt-logprobs", "generated-logprobs", "token-by-token", "text")


@dataclass(frozen=True)
class Capabilities:
    """What a backend gives for one model.

    Attributes:
        chat: whether it answers messages.
        responses: whether it does so by the Responses API alone.
        completions: whether it goes on from a text.
        prompt_logprobs: of the prompt: "true"; "shifted" (they belong to a neighbouring token);
            "chance" (they say nothing); or "absent".
        generated_logprobs: of what it generates, in the endpoint used for answers.
        top: likeliest tokens it lists at most, of 20, 15 and 5; 0 where there are none.
        ten: whether it writes 10 as one token, as far as was seen; otherwise simulators that read
            probabilities use the scale 0-9.
        restriction: what holds its answers to a form; "" where nothing does.
        bias: whether it gives probabilities among chosen tokens alone (llama.cpp).
        limit: the name of the field that limits an answer's length.
        temperature: whether it takes a temperature.
        reasons: whether it thinks before it answers, so that it needs room for that.
    """

    chat: bool = False
    responses: bool = False
    completions: bool = False
    prompt_logprobs: Truth = "absent"
    generated_logprobs: Truth = "absent"
    top: int = 0
    ten: bool = True
    restriction: Restriction = ""
    bias: bool = False
    limit: str = "max_tokens"
    temperature: bool = True
    reasons: bool = False

    def methods(self) -> list[Method]:
        """The simulators that fit, the best first: from the prompt, the answer, or its text."""
        generated = self.generated_logprobs == "true"
        needs: dict[Method, bool] = {
            "prompt-logprobs": self.prompt_logprobs == "true",
            "generated-logprobs": generated and self.chat,
            "token-by-token": self.completions and (generated or self.bias),
            "text": self.chat,
        }
        return [method for method in METHODS if needs[method]]

    @property
    def method(self) -> Method:
        """The best that fits.

        Raises:
            RemoteError: where none does.
        """
        fitting = self.methods()
        if fitting:
            return fitting[0]
        raise RemoteError(
            "this backend has no chat and no log-probabilities that can be trusted (of the prompt: "
            f"{self.prompt_logprobs}, of answers: {self.generated_logprobs}), so it cannot "
            "simulate; use another server or model"
        )

    def fits(self, method: str) -> Method:
        """`method`, where this backend gives what it needs.

        Raises:
            DataError: for an unknown method.
            RemoteError: where it does not.
        """
        able = self.methods()
        for known in able:
            if method == known:
                return known
        if method not in METHODS:
            raise DataError(f"no simulator is called {method!r}; use {', '.join(METHODS)}")
        raise RemoteError(
            f"this backend does not give what the simulator {method!r} needs (log-probabilities of "
            f"the prompt: {self.prompt_logprobs}, of answers: {self.generated_logprobs}, chat: "
            f"{'yes' if self.chat else 'no'}); it can serve {', '.join(able) or 'none'}"
        )
