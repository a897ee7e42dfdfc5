"""A server that speaks OpenAI's protocol, reached through aiohttp.

Nothing lies between the request and the connection: the official client takes a millisecond of the
processor for each request, repeats what must not be repeated, and knows fields that gateways do
not. Redirects are not followed, since they would carry texts and answers elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit

from polycode_plugins.explainers.language_model.transport.address import (
    OPENAI,
    checked_url,
    in_clear,
    proxy_for,
    without_user,
)
from polycode_plugins.explainers.language_model.transport.failures import (
    Refused,
    RemoteError,
    Transient,
)
from polycode_plugins.explainers.language_model.transport.refusals import (
    error_within,
    refusal,
    said_in,
)
from polycode_plugins.explainers.language_model.transport.request import Request
from polycode_plugins.explainers.language_model.transport.secrets import Secret, harmless, one_line
from polycode_plugins.plugins import missing_extra

if TYPE_CHECKING:
    import aiohttp

MOST_BYTES = 1 << 28  # of one answer; log-probabilities of a long prompt are some megabytes
CONNECT_SECONDS = 30.0
PROXY_PASSWORD = 407  # the status with which a proxy asks for one


class Backend(Protocol):
    """Whatever answers requests.

    `close()`, where there is one, ends it. `timeout` is the seconds a request may take, where too
    many requests at once make it slow; without it all are sent that may be.
    """

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
        timeout: seconds from sending a request to the end of its answer; waiting for its turn
            here does not count.
        plain_http: send a key over http to another machine.

    Raises:
        DataError: for a URL that is none, holds a secret, or would carry the key in clear.
        PluginError: where `aiohttp` is missing.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        plain_http: bool = False,
    ) -> None:
        try:
            import aiohttp
        except ImportError as error:
            raise missing_extra("aiohttp", "openai", "the explainer 'openai'") from error
        import os

        key = os.environ.get(key_variable, "").strip()
        self.identity = checked_url(base_url, key, key_variable, plain_http=plain_http)
        self.timeout = timeout
        host = urlsplit(self.identity).hostname
        # Nothing is asked yet: a dry run needs no key.
        self._keyless = not key and host == urlsplit(OPENAI).hostname
        self._aiohttp, self._client = aiohttp, None
        self._variable, self._secret, self._reached = key_variable, Secret(key), False
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self._headers |= {"User-Agent": "polycode-plugins"}
        self._headers |= {"Authorization": f"Bearer {key}"} if key else {}
        self._proxy = proxy_for(self.identity)
        #: What a reader of the run should know about the connection.
        self.warnings: tuple[str, ...] = ()
        if in_clear(self.identity):
            self.warnings = (
                f"texts and answers travel to {host} in clear over http: whoever is on the way "
                "can read and change them",
            )

    _client: aiohttp.ClientSession | None

    def __repr__(self) -> str:
        return f"OpenAIServer({self.identity!r})"

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def send(self, request: Request, key: str) -> dict[str, Any]:
        """The answer as JSON; see `Backend`."""
        if self._keyless:
            raise RemoteError(
                f"there is no key for OpenAI: set the environment variable {self._variable}, or "
                "give base_url for another server"
            )
        url = f"{self.identity}/{request.endpoint}"
        # A token may be half a character, which is no UTF-8.
        sent = json.dumps(request.body, ensure_ascii=False).encode(errors="replace")
        # A server or proxy that knows this header answers a repeated request for nothing.
        headers = {**self._headers, "Idempotency-Key": key}
        try:
            async with self._connections().post(
                url, data=sent, headers=headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                self._reached = True
                body = await self._body(response)
                status = response.status
                told = response.headers  # by names in any case
        except (self._aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._connection(error) from None
        if status == 200:
            return self._answer(body, told)
        if 300 <= status < 400:
            raise self._redirect(url, told.get("location", ""))
        if status == PROXY_PASSWORD:
            raise self._locked_proxy()
        said, codes = self._said(body)
        raise self._refusal(status, said, codes, told)

    def _connections(self) -> aiohttp.ClientSession:
        if self._client is None:  # it belongs to the loop that it is made in
            http = self._aiohttp
            connect = min(CONNECT_SECONDS, self.timeout)
            self._client = http.ClientSession(
                connector=http.TCPConnector(limit=0, keepalive_timeout=30),
                timeout=http.ClientTimeout(total=self.timeout, sock_connect=connect),
                cookie_jar=http.DummyCookieJar(),
            )
        return self._client

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """All of an answer's bytes, unpacked; never more than `MOST_BYTES` of them."""
        parts, size = [], 0
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                response.close()
                raise Refused("the answer was longer than any that was asked for", lost=True)
        return b"".join(parts)

    def _answer(self, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        raw = self._parsed(body)
        if not isinstance(raw, dict):
            shown = self._secret.clean(one_line(body[:2000].decode(errors="replace"), 120))
            if shown.startswith(("data:", "event:")):
                reason = "the server streams its answers, which was not asked for"
            else:
                reason = f"the answer was not JSON: {shown}" if shown else "the answer was empty"
            raise Refused(reason, shown, lost=True)
        error = error_within(raw)
        if error is not None:
            raise self._refusal(*error, headers)
        return raw

    def _parsed(self, body: bytes) -> Any:
        """The JSON of a body, cleared of the key; None where it is none."""
        try:
            text = body.decode(json.detect_encoding(body), "replace").removeprefix("\ufeff")
            raw = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if self._secret.suspects(text):
            raw = self._secret.clean_all(raw)
        return harmless(raw) if "\\ud" in text or "\\uD" in text else raw

    def _said(self, body: bytes) -> tuple[str, str]:
        parsed = self._parsed(body)
        said, codes = said_in(body if parsed is None else parsed)
        return self._secret.clean(said), self._secret.clean(codes)

    def _refusal(self, status: int, said: str, codes: str, headers: Mapping[str, str]) -> Exception:
        return refusal(
            status,
            said,
            codes,
            server=self.identity,
            key_variable=self._variable,
            headers=headers,
        )

    def _redirect(self, url: str, location: str) -> RemoteError:
        parts = urlsplit(urljoin(url, location))
        where = self._secret.clean(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
        if parts.scheme and parts.hostname:
            where += self._secret.clean(parts.path)
        return RemoteError(
            f"{self.identity} sends its requests on to {one_line(where, 200)}, which was not "
            "followed, so that no text goes where you did not send it; if that is the right "
            "address, give it as base_url"
        )

    def _connection(self, error: BaseException) -> Exception:
        http = self._aiohttp
        # aiohttp shows the proxy's URL, with the password in it.
        said = self._secret.clean(without_user(one_line(str(error))))
        if getattr(error, "status", None) == PROXY_PASSWORD:
            return self._locked_proxy()
        if isinstance(error, http.ConnectionTimeoutError):
            return self._unreached(Transient("no connection was made in time"), said)
        if isinstance(error, TimeoutError):
            return Transient(f"no answer within {self.timeout:g} s", lost=True, slow=True)
        if isinstance(error, http.ClientConnectorCertificateError | http.ClientSSLError):
            return RemoteError(
                f"{self.identity} cannot be trusted ({said}); check base_url, or name the "
                "certificate of your own authority in $SSL_CERT_FILE"
            )
        if isinstance(error, http.ClientConnectorError | http.ClientProxyConnectionError):
            return self._unreached(Transient("the connection was dropped", said), said)
        if isinstance(error, http.ClientPayloadError):
            return Refused("the answer was cut off", said, lost=True)
        if isinstance(error, http.ClientResponseError | http.InvalidURL):
            return RemoteError(
                f"{self.identity} does not answer in HTTP ({said}); check base_url", None, said
            )
        return Transient("the connection was dropped", said, lost=True)

    def _locked_proxy(self) -> Exception:
        where = f" {without_user(self._proxy)}" if self._proxy else ""
        return RemoteError(
            f"the proxy{where} on the way to {self.identity} wants another user and password; set "
            f"them in ${urlsplit(self.identity).scheme}_proxy"
        )

    def _unreached(self, again: Transient, said: str) -> Exception:
        if self._reached:
            return again
        return RemoteError(
            f"{self.identity} cannot be reached"
            + (f" through the proxy {without_user(self._proxy)}" if self._proxy else "")
            + f" ({said or again.reason}); start the server or check base_url"
        )
