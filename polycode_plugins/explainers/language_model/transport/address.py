"""The URL of a server: what may stand in it, and who else could read what is sent there."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.language_model.transport.secrets import keys_in

OPENAI = "https://api.openai.com/v1"


def checked_url(url: str | None, key: str, key_variable: str, *, plain_http: bool) -> str:
    """The URL of an API without a slash at its end; by default $OPENAI_BASE_URL, or OpenAI's.

    Raises:
        DataError: for a URL that is none, that holds what may be a secret, or over which a key
            would travel in clear.
    """
    url = (url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise DataError("base_url is not a URL such as http://localhost:8000/v1")
    held = {
        "a user or a password": parts.username or parts.password,
        "a query": parts.query,
        "a fragment": parts.fragment,
        "what looks like a key": keys_in(unquote(parts.path), key) or keys_in(host, key),
    }
    what = next((name for name, found in held.items() if found), None)
    if what is not None:
        raise DataError(
            f"base_url holds {what}, which would be stored with the results; give the plain URL, "
            f"and the key in ${key_variable}"
        )
    if key and in_clear(url) and not plain_http:
        raise DataError(
            f"the key in ${key_variable} would travel to {host} in clear over http: use https, "
            "name another variable with key_variable if that server needs no key, or give "
            "plain_http=True if the network between is yours alone"
        )
    return url


def in_clear(url: str) -> bool:
    """Whether what is sent leaves this machine unencrypted."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def same_origin(a: str, b: str) -> bool:
    """Whether two URLs are of one server, so that a key for one is a key for the other."""
    one, two = urlsplit(a), urlsplit(b)
    return (one.scheme, one.netloc.lower()) == (two.scheme, two.netloc.lower())


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this URL.

    Raises:
        DataError: for one that speaks something else than HTTP.
    """
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.netloc) or proxy_bypass(parts.hostname):
        return None
    found = getproxies()
    proxy = found.get(parts.scheme) or found.get("all")
    if proxy and "://" in proxy and not proxy.lower().startswith(("http://", "https://")):
        raise DataError(
            f"the proxy in the environment is {without_user(proxy)}, and only HTTP proxies are "
            f"spoken to; name such a one, or add {parts.hostname} to $no_proxy"
        )
    return proxy


def without_user(text: str) -> str:
    """A text whose URLs have no user and no password."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)
