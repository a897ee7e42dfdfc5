"""The server: what it may answer, and what must not leak."""

from __future__ import annotations

import pytest

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.language_model import (
    OpenAIServer,
)
from polycode_plugins.explainers.language_model.server import retry_after


def test_retry_after_is_seconds_or_a_date():
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "1500"}) == 1.5
    assert retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "http://host/v1?key=secret", "host"])
def test_a_url_that_would_leak_or_is_none(url):
    with pytest.raises(DataError, match="base_url") as caught:
        OpenAIServer(url)
    assert "secret" not in str(caught.value)
