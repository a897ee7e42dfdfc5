"""Prompts say what they are."""

from __future__ import annotations

from polycode_plugins.explainers.language_model import prompts


def test_the_prompts_hash_is_known():
    # Change it with the prompts: the store's keys hold it, so old answers are not taken for new.
    assert len(prompts.version()) == 12
    assert prompts.version() != prompts.version.__wrapped__.__name__


def test_prompts_keep_one_token_a_line():
    prompt = prompts.simulate_text("two\nlines", ("a\tb", "c\nd"), top=10)
    assert prompt.endswith("responds to two lines\n<text>\na\\tb\tunknown\nc\\nd\tunknown\n")
    assert prompts.marked_text(("a", " b", " c", " d"), (1, 2)) == "a<< b c>> d"
