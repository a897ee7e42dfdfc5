"""Texts coloured by activation."""

from __future__ import annotations

import numpy as np

from polycode_plugins.explainers.comparison.heat_texts import runs, visible


def test_every_character_that_hides_is_shown():
    assert visible("a\u202eb\x1b[31m\n\ud800\u200b\u2028") == (
        "a\\u202eb\\x1b[31m↵\\ud800\\u200b\\u2028"
    )
    assert visible(" naïve 漢字 🙂") == " naïve 漢字 🙂"


def test_runs_join_what_is_not_coloured_and_keep_every_token():
    made = runs(["a", " b", " c", " d"], np.array([0.4, -0.9, 3.7, -20.0]))
    assert [(r.text, r.level) for r in made] == [("a b", 0), (" c", 3), (" d", -10)]
