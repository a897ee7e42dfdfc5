"""URLs that would leak something are refused, and plain http is spoken of."""

from __future__ import annotations

import pytest
from openai_server import KEY

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.language_model import OpenAIServer
from polycode_plugins.explainers.language_model.transport.address import same_origin


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("https://me:secret@host/v1", "a user or a password"),
        ("https://secret@host/v1", "a user or a password"),
        ("https://host/v1?key=secret", "a query"),
        ("https://host/v1#secret", "a fragment"),
        (f"https://host/{KEY}/v1", "looks like a key"),
        (f"https://host/{KEY[:15]}/v1", "looks like a key"),
        (f"https://host/{'%'.join(['', *(f'{b:02x}' for b in KEY.encode())])}/v1", "like a key"),
        ("https://host/sk-proj-abcdefgh0123/v1", "looks like a key"),
        ("https://host/aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE/v1", "looks like a key"),
    ],
)
def test_a_url_that_holds_a_secret(url, what):
    with pytest.raises(DataError, match=what) as caught:
        OpenAIServer(url)
    assert "secret" not in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["host", "ftp://host/v1", "http://", "http://[::1/v1", "http://h:x/"]
)
def test_a_url_that_is_none(url):
    with pytest.raises(DataError, match="is not a URL such as"):
        OpenAIServer(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "https://gateway.ai.example.com/v1/f0e1d2c3b4a5968778695a4b3c2d1e0f/name/openai",
        "https://host/v2/1b4e28ba-2fa1-11d2-883f-0016d3cca427/openai/v1",
        "https://generativelanguage.example.com/v1beta/openai",
    ],
)
def test_long_names_in_a_path_are_no_keys(url):
    assert OpenAIServer(url + "/").identity == url


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:1", "[::1]:8000", "a.localhost"])
def test_this_machine_needs_no_encryption(host):
    assert OpenAIServer(f"http://{host}/v1").warnings == ()


def test_a_key_does_not_travel_in_clear(monkeypatch):
    with pytest.raises(DataError, match=r"\$OPENAI_API_KEY would travel to 10.0.0.5 in clear"):
        OpenAIServer("http://10.0.0.5:8000/v1")
    assert OpenAIServer("http://10.0.0.5:8000/v1", plain_http=True).warnings
    [warning] = OpenAIServer("http://gpu-node/v1", key_variable="UNSET_KEY").warnings
    assert "texts and answers travel to gpu-node in clear" in warning


def test_what_is_one_server():
    assert same_origin("https://Host/v1", "https://host/v2")
    assert not same_origin("https://host/v1", "http://host/v1")
    assert not same_origin("https://host:1/v1", "https://host:2/v1")
