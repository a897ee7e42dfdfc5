"""A key and its parts are cleared from texts; what is no key stays."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polycode_plugins.explainers.language_model.transport.secrets import (
    SHOWN,
    Secret,
    harmless,
    one_line,
)

KEY = "sk-proj-Ab3dE5gH7jK9mN1pQ3sT5vW7yZ"


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        KEY.lower(),
        KEY[:12],
        KEY[10:24],
        KEY[-10:],
        f"{KEY[:7]}*****{KEY[-4:]}",
        f"{KEY[:3]}...{KEY[-3:]}",
        f"{KEY[:8]}…",
        f"xxxxxxxx{KEY[-4:]}",
        f"{KEY[:5]}[redacted]",
        "".join(f"%{b:02X}" for b in KEY.encode()),
        base64.b64encode(KEY.encode()).decode(),
        KEY.encode().hex(),
        KEY[::-1],
    ],
)
def test_forms_of_a_key(form):
    text = f"the key ({form}) is wrong"
    cleaned = Secret(KEY).clean(text)
    assert SHOWN in cleaned
    assert form not in cleaned
    assert cleaned.startswith("the key (")
    assert cleaned.endswith(") is wrong")
    assert Secret(KEY).suspects(json.dumps({"a": text}))


@given(st.integers(0, len(KEY) - 8), st.integers(8, len(KEY)))
def test_any_part_of_eight_characters(start, length):
    part = KEY[start : start + length]
    if len(part) >= 8:
        assert part not in Secret(KEY).clean(f"a {part} b")
        assert Secret(KEY).suspects(f"a {part} b")


@pytest.mark.parametrize(
    "text",
    ["sk-", "words... and more", "a *** b", "dict[key]", "sk-proj", "the task... is", "", "xxx"],
)
def test_other_texts_stay(text):
    assert Secret(KEY).clean(text) == text


@pytest.mark.parametrize("key", ["", "none", "EMPTY", "test"])
def test_words_that_servers_without_keys_are_given_are_no_secrets(key):
    text = f"none of the {key} tests is EMPTY"
    assert Secret(key).clean(text) == text


def test_a_short_key_is_looked_for_as_a_whole():
    assert Secret("sk-1234").clean("use sk-1234 or sk-12345") == f"use {SHOWN} or sk-12345"


def test_all_strings_of_a_value():
    value = {KEY: [KEY, {"a": f"x{KEY}"}], "n": 1}
    assert Secret(KEY).clean_all(value) == {SHOWN: [SHOWN, {"a": f"x{SHOWN}"}], "n": 1}


def test_halves_of_characters_and_pages():
    assert harmless({"a": ["x\ud83d", "\U0001f600"]}) == {"a": ["x�", "\U0001f600"]}
    page = "<html><style>b{}</style><h1>Bad  gateway</h1>\n<p>sorry</p></html>"
    assert one_line(page) == "Bad gateway sorry"
