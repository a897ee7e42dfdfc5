"""A server that speaks OpenAI's protocol, reached through the official `openai` package.

That package's own retries are off, since it repeats requests that this one must not, and its typed
answers are passed by: fields that it does not know are kept. Connections are aiohttp's, which takes
the least of the processor; without it they are the package's own, and the answers the same.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.language_model.failures import Refused, RemoteError, Transient
from polycode_plugins.explainers.language_model.request import Request
from polycode_plugins.plugins import missing_extra

OPENAI = "https://api.openai.com/v1"
LONGEST_WAIT = 300.0


class Backend(Protocol):
    """Whatever answers requests; `close()`, where there is one, ends it."""

    #: Names it in the store; no secret in it.
    identity: str

    def send(self, request: Request, key: str) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """The answer as JSON: an `async def`, or a function that may be called by many threads.

        Raises:
            Transient: when the same may succeed later.
            Refused: when this request cannot succeed.
            RemoteError: when none will.
        """
        ...


class OpenAIServer:
    """A server behind a URL.

    The key is read from an environment variable and never leaves this object but to the server:
    what the server says is cleared of it.

    Args:
        base_url: of the API, ending in /v1 as a rule; by default $OPENAI_BASE_URL, or OpenAI.
        key_variable: name of the environment variable that holds the key. It may be unset for
            servers other than OpenAI's.
        timeout: seconds to wait for an answer.

    Raises:
        DataError: for a URL that is none or holds a password.
        PluginError: where the `openai` package is missing.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise missing_extra("openai", "openai", "the explainer 'openai'") from error
        url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError("base_url is not a URL such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise DataError(
                "base_url holds a user, a password or a query, which would be stored with the "
                f"results; give the plain URL, and the key in ${key_variable}"
            )
        secret = os.environ.get(key_variable, "").strip()
        # Nothing is asked yet: a dry run needs no key.
        self._keyless = not secret and parts.hostname == urlsplit(OPENAI).hostname
        self.identity = url
        self._variable, self._secret, self._timeout = key_variable, secret, timeout
        self._openai, self._reached = openai, False
        http = None
        with suppress(RuntimeError):  # aiohttp is not installed
            http = openai.DefaultAioHttpClient(timeout=timeout)
        self._client = openai.AsyncOpenAI(
            api_key=secret or "none",
            base_url=url,
            max_retries=0,
            timeout=timeout,
            http_client=http,
        )

    def __repr__(self) -> str:
        return f"OpenAIServer({self.identity!r})"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def send(self, request: Request, key: str) -> dict[str, Any]:
        """The answer as JSON; see `Backend`."""
        if self._keyless:
            raise RemoteError(
                f"there is no key for OpenAI: set the environment variable {self._variable}, or "
                "give base_url for another server"
            )
        try:
            raw: object = await self._client.post(
                f"/{request.endpoint}",
                cast_to=object,
                body=request.body,
                # A server or proxy that knows this header answers a repeated request for nothing.
                options={"headers": {"Idempotency-Key": key}},
            )
        except self._openai.APIStatusError as error:
            self._reached = True
            raise self._status(error) from None
        except self._openai.APIConnectionError as error:
            raise self._connection(error) from None
        except (ValueError, self._openai.APIResponseValidationError):
            raise Refused("the answer was not JSON", lost=True) from None
        self._reached = True
        if not isinstance(raw, dict):
            raise Refused("the answer was not JSON", self._clean(str(raw)), lost=True)
        return raw

    def _status(self, error: Any) -> Exception:
        status, said = int(error.status_code), self._clean(str(error.message))
        if "insufficient_quota" in (error.code, error.type):
            return RemoteError(
                f"{self.identity} has no credit left ({said}); what was answered is saved: add "
                "credit and repeat the same command",
                status,
            )
        if status in (401, 403):
            return RemoteError(
                f"{self.identity} refuses the key in ${self._variable} ({said}); set the right one "
                "and repeat the same command",
                status,
            )
        if status == 404:
            return RemoteError(
                f"{self.identity} does not know the model or the path ({said}); check the model's "
                "name and base_url",
                status,
            )
        if status in (408, 429) or status >= 500:
            wait = retry_after(error.response.headers)
            if wait is not None and wait > LONGEST_WAIT:
                return RemoteError(
                    f"{self.identity} asks to wait {wait:.0f} s; what was answered is saved: "
                    "repeat the same command then",
                    status,
                )
            return Transient(f"the server answered {status} again and again", said, wait)
        return Refused(f"the server refused the request ({status})", said)

    def _connection(self, error: Any) -> Exception:
        # aiohttp's own class tells: translated, a refused connection and a dropped one are
        # time-outs. All are named by text, since which packages there are varies.
        causes = list(_causes(error))
        cause = next((c for c in causes if type(c).__module__.startswith("aiohttp")), causes[0])
        kinds, said = {kind.__name__ for kind in type(cause).__mro__}, self._clean(str(cause))
        connecting = any("Connect" in kind and "Timeout" in kind for kind in kinds)
        if kinds & {"TimeoutError", "TimeoutException"}:
            return Transient(f"no answer within {self._timeout:g} s", lost=not connecting)
        cut = "RemoteProtocolError" in kinds and "without sending a response" not in said
        if cut or "ClientPayloadError" in kinds:
            return Refused("the answer was cut off", said, lost=True)
        refused = bool(kinds & {"ConnectError", "ClientConnectorError"})
        if refused and not self._reached:
            return RemoteError(
                f"{self.identity} cannot be reached ({said}); start the server or check base_url"
            )
        return Transient("the connection was dropped", said, lost=not refused)

    def _clean(self, text: str) -> str:
        text = " ".join(text.split())[:300]
        return text.replace(self._secret, "[key]") if self._secret else text


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What lies behind an error, the nearest first; the error itself where nothing does."""
    cause = error.__cause__ or error.__context__
    if cause is None:
        yield error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the headers retry-after-ms or Retry-After (seconds or a date)."""
    import time

    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
