"""Which request each row of a packed step belongs to, and which of its tokens were seen before.

An engine packs the tokens of all requests under way into one matrix [tokens, width]: a long prompt
comes in chunks, a generated text one token at a time, and a request that was put off for want of
memory is computed again from its beginning. Positions tell: what is counted of a request are its
tokens in order, each once, whatever the schedule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from polycode_plugins.errors import DataError


@dataclass(frozen=True)
class Part:
    """Consecutive tokens of one request in one step.

    Attributes:
        request: the engine's name for the request.
        first: position of the first of them in the request.
        start: row of the first of them in the step.
        count: how many.
    """

    request: str
    first: int
    start: int
    count: int


def step_parts(
    requests: Sequence[str], starts: Sequence[int], lengths: Sequence[int], rows: int
) -> list[Part]:
    """The parts of one step, from what the engine's forward context says.

    Args:
        requests: those in the step, in the order of their rows.
        starts: where the rows of each begin, and where the last one's end (`query_start_loc`).
        lengths: tokens of each up to the end of this step (`seq_lens`).
        rows: of the step; those behind the last part are padding.

    Raises:
        DataError: where these do not belong together.
    """
    counts = [stop - start for start, stop in pairwise(starts)]
    fits = (
        len(starts) == len(requests) + 1 == len(lengths) + 1
        and starts[0] == 0
        and starts[-1] <= rows
        and all(0 < count <= length for count, length in zip(counts, lengths, strict=True))
        and len(set(requests)) == len(requests)
    )
    if not fits:
        raise DataError(
            f"the engine's step has {rows} rows and {len(requests)} requests, and its forward "
            f"context says that they begin at {list(starts)} and have {list(lengths)} tokens, "
            "which do not belong together; this version of vLLM is not one that this adapter reads"
        )
    return [
        Part(request, length - count, start, count)
        for request, start, count, length in zip(requests, starts, counts, lengths, strict=False)
    ]


@dataclass
class Ledger:
    """How many tokens of each request have been seen.

    Attributes:
        seen: by request.
        repeated: tokens that were computed again and not taken.
    """

    seen: dict[str, int] = field(default_factory=dict)
    repeated: int = 0

    def new(self, part: Part) -> Part | None:
        """What of a part was not seen before; it counts as seen from now on. None for nothing.

        Raises:
            DataError: where tokens before it never came.
        """
        seen = self.seen.get(part.request, 0)
        if part.first > seen:
            raise DataError(
                f"{part.first - seen} tokens of a request did not pass through the model: they "
                "were in a prefix cache (make the LLM with enable_prefix_caching=False), or the "
                "request was under way before statistics were gathered"
            )
        again = min(seen - part.first, part.count)
        self.repeated += again
        if again == part.count:
            return None
        self.seen[part.request] = part.first + part.count
        return Part(part.request, seen, part.start + again, part.count - again)

    def forget(self, request: str) -> None:
        """Let go of a request that has ended."""
        self.seen.pop(request, None)


_SUFFIX = re.compile(r"-[0-9a-f]{8}$")
_SAMPLE = re.compile(r"^\d+_(?=.)")


def asked_name(request: str) -> str:
    """The name that a request was made with: the engine adds eight digits to it."""
    return _SUFFIX.sub("", request)


def family(request: str) -> str:
    """Equal for the samples of one prompt (`n` above 1), which begin alike."""
    return _SAMPLE.sub("", request)
