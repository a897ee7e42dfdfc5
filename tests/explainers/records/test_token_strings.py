"""Tokens as strings."""

from __future__ import annotations

from polycode_plugins.explainers.records.token_strings import TokenStrings


def test_half_characters_stay_apart():
    class Bytes:
        def decode(self, ids):
            return {0: "\ufffd", 1: "\ufffd", 2: " é"}[ids[0]]

        def convert_ids_to_tokens(self, token):
            return {0: "Ġâ", 1: "Ģ", 2: "ĠÃ©"}[token]

    assert TokenStrings(Bytes())([0, 1, 2]) == (" \\xe2", "\\x80", " é")
