"""Requests and the estimate of their tokens."""

from __future__ import annotations

import re
import string

from hypothesis import given, strategies

from polycode_plugins.explainers.language_model.transport.request import estimated_tokens


def test_the_estimate_of_tokens_is_of_the_right_size():
    text = "The unit fires 1234 times, at\tnumbers\t10\nand words like counterrevolutionary. " * 50
    # 18 words, numbers, marks and blanks a line, of which three are long enough to be split.
    assert 20 * 50 <= estimated_tokens(text) <= 26 * 50
    assert estimated_tokens("日本語") == 9  # a token for each byte is the worst that can be


@given(strategies.text(alphabet=string.printable + "é日\ud800\U0001f600", max_size=60))
def test_the_estimate_counts_what_it_says(text):
    pieces = re.compile(rb" ?[A-Za-z]{1,5}|[0-9]{1,3}|[ \t\n\r\x0b\x0c]+|.", re.DOTALL)
    assert estimated_tokens(text) == len(pieces.findall(text.encode(errors="surrogatepass")))
