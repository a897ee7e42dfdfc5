"""What answers take: one, or all that an explainer keeps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What an answer took; zero for what is computed here. Costs add up.

    What comes out of a store costs what it took when it was paid for, so that a unit's costs are
    the same after a run that was cut short.

    Attributes:
        requests: requests that were sent, with those of the run that paid for a stored answer.
        stored: requests answered out of a store.
        prompt_tokens: tokens sent.
        completion_tokens: tokens received.
    """

    requests: int = 0
    stored: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.requests + other.requests,
            self.stored + other.stored,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


FREE = Cost()


@dataclass(frozen=True)
class Spent:
    """What all the answers that an explainer keeps have taken.

    Attributes:
        answers: requests answered.
        failures: attempts that ended without an answer, or with one that did not say what was
            asked for.
        lost: attempts cut short by a crash or a time-out, which may have been paid for.
        tokens_in: tokens sent; tokens_out: tokens received.
        dollars: price of all that was answered, plus the estimated price of what was lost; 0 where
            no prices were given.
    """

    answers: int
    failures: int
    lost: int
    tokens_in: int
    tokens_out: int
    dollars: float
