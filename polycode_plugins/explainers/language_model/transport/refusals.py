"""What a server's refusal means: wait, give this request up, or stop the run.

The same words come as a status of HTTP, as an error inside an answer with status 200, or inside one
choice; they mean the same everywhere.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from polycode_plugins.explainers.language_model.transport.failures import (
    Refused,
    RemoteError,
    Transient,
)
from polycode_plugins.explainers.language_model.transport.secrets import joined, one_line

LONGEST_WAIT = 300.0
_CREDIT = re.compile(
    r"insufficient[ _](quota|credit|balance|fund)|exceeded your (current|monthly) quota|"
    r"(credit|account) balance|out of credit|no credit|not enough credit|more credits|"
    r"billing (hard|soft)?[ _]?limit|billing_hard_limit|payment required|spending limit|"
    r"quota (is )?(exhausted|used up)|add (a )?(credit|payment|fund)|top up",
    re.IGNORECASE,
)
_PASSING = re.compile(
    r"per[ -](second|minute)|\b[rt]pm\b|rate.?limit|(re)?try (again|after|in)", re.I
)
_NO_MODEL = re.compile(
    r"not a valid model|model_not_found|no such model|unknown model|invalid model|"
    r"model .{0,120}(does not exist|not found|is not available|not supported on this)",
    re.IGNORECASE,
)
_LATER = re.compile(
    r"(?:try|retry)(?:ing)?(?: again)? (?:in|after) ((?:\d+(?:\.\d+)?\s?(?:ms|s|m|h)[a-z]*\s?)+)",
    re.IGNORECASE,
)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def said_in(body: Any) -> tuple[str, str]:
    """What an error says in words, on one line, and its codes.

    Args:
        body: JSON of any of the forms in use, or a text, which may be HTML.
    """
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, str | bytes):
        text = body if isinstance(body, str) else body.decode(errors="replace")
        return one_line(text), ""
    if not isinstance(body, Mapping):
        return "", ""
    error = body.get("error")
    inner: Mapping[str, Any] = error if isinstance(error, Mapping) else body
    words = [error] if isinstance(error, str) else []
    words += [_words(inner.get(name)) for name in ("message", "detail", "msg", "errors")]
    metadata = inner.get("metadata")
    if isinstance(metadata, Mapping):  # a gateway's: what the provider behind it said
        words.append(_words(metadata.get("raw")))
    codes = [str(inner[n]) for n in ("code", "type", "status") if inner.get(n) is not None]
    return one_line(joined(words) or _words(inner)), " ".join(codes)


def _words(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return joined(_words(v) for v in value)
    if isinstance(value, Mapping):
        said = next((value[n] for n in ("message", "msg", "detail") if n in value), None)
        return json.dumps(value) if said is None else _words(said)
    return str(value)


def refusal(
    status: int,
    said: str,
    codes: str,
    *,
    server: str,
    key_variable: str,
    headers: Mapping[str, str] | None = None,
) -> Exception:
    """The exception that a refusal is.

    Args:
        status: of HTTP, or the code in an error that came with status 200.
        said: in words, cleared of the key; codes: with it.
        server: its URL; key_variable: where its key is, for the message.
        headers: of the answer, found by names in lower case.
    """
    quoted, wait = f" ({said})" if said else "", retry_after(headers or {}, said)
    passing = wait is not None or (_PASSING.search(said) and "insufficient_quota" not in codes)
    if status == 402 or (_CREDIT.search(f"{codes} {said}") and not passing):
        return RemoteError(
            f"{server} has no credit left{quoted}; what was answered is saved: add credit and "
            "repeat the same command",
            status,
            said,
        )
    if status in (401, 403, 407):
        return RemoteError(
            f"{server} refuses the key in ${key_variable}{quoted}; set the right one and repeat "
            "the same command",
            status,
            said,
        )
    if status in (404, 410) or (400 <= status < 500 and _NO_MODEL.search(f"{codes} {said}")):
        return RemoteError(
            f"{server} does not know the model or the path{quoted}; check the model's name and "
            "base_url",
            404,
            said,
        )
    if status in (408, 425, 429) or status >= 500:
        if wait is not None and wait > LONGEST_WAIT:
            return RemoteError(
                f"{server} asks to wait {wait:.0f} s{quoted}; what was answered is saved: repeat "
                "the same command then",
                status,
                said,
            )
        again = f"the server answered {status} again and again"
        reason = f"{again}: {said}" if said else again
        return Transient(reason, said, wait, busy=status in (429, 503, 529))
    reason = f"the server refused the request ({status})"
    return Refused(f"{reason}: {said}" if said else reason, said)


def error_within(raw: Mapping[str, Any]) -> tuple[int, str, str] | None:
    """The status, words and codes of an error that came with status 200; None where there is none.

    An error beside an answer counts too: an answer that was broken off is none.
    """
    error = raw.get("error")
    choices = raw.get("choices")
    if not error and isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        error = choices[0].get("error")
    if not error and raw.get("object") == "error":
        error = raw
    if not error:
        return None
    said, codes = said_in({"error": error})
    code = error.get("code", error.get("status")) if isinstance(error, Mapping) else None
    try:
        status = int(str(code))
    except ValueError:
        status = 0
    if not 300 <= status <= 599:
        status = 429 if "rate_limit" in codes or "overloaded" in codes else 400
    return status, said, codes


def retry_after(headers: Mapping[str, str], said: str = "") -> float | None:
    """Seconds to wait, by the headers retry-after-ms or Retry-After (seconds or a date), or words.

    None where the server does not say.
    """
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is not None:
            try:
                return max(0.0, float(value))
            except ValueError:
                return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        pass
    found = _LATER.search(said)
    if found is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s?(ms|s|m|h)", found.group(1), re.IGNORECASE)
    return sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
