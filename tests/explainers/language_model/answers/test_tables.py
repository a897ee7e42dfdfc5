"""A table of numbers is read exactly or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tables_of import TOKENS, table

from polycode_plugins.explainers.language_model.answers import tables
from polycode_plugins.explainers.language_model.transport.failures import Unreadable


def test_a_table_is_read_and_a_fence_is_no_matter():
    np.testing.assert_array_equal(tables.table(table([0, 1, 10, 2]), "q", TOKENS), [0, 1, 10, 2])
    fenced = f"```json\n{table([0, 1, 10, 2])}\n```"
    np.testing.assert_array_equal(tables.table(fenced, "q", TOKENS), [0, 1, 10, 2])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5 5 5 5", "is not JSON"),
        ("[1, 2]", "no list"),
        ('{"id": "q"}', "no list"),
        (table([0, 1, 2, 3], id="other"), "another request"),
        (table([0, 1, 2], TOKENS[:3]), "too many or too few"),
        (table([0, 1, 2, 11]), "whole numbers"),
        (table([0, 1, 2, -1]), "whole numbers"),
        (table([0, 1, 2, 3.5]), "whole numbers"),
        (table([0, 1, 2, True]), "whole numbers"),
        (table([0, 1, 2, None]), "whole numbers"),
        (table([0, 1, 2, 3], ("x", "y", "z", "w")), "another request"),
        (table([0, 1, 2, 3]).replace("[1,", "[2,"), "in order"),
    ],
)
def test_what_is_no_table(text, reason):
    with pytest.raises(Unreadable, match=reason):
        tables.table(text, "q", TOKENS)


@pytest.mark.parametrize(
    "text",
    [
        f"Here is the JSON:\n```json\n{table([0, 1, 10, 2])}\n```\nDoes this help?",
        f"First [a draft], then {table([0, 1, 10, 2])} as asked.",
        f"{table([5, 5, 5, 5], id='draft')}\n{table([0, 1, 10, 2])}",
        table([0.0, 1.0, 10.0, 2.0]),
        table(["0", "1", "10", "2"]),
        table([0, "1.0", 10.0, "2"]),
        table([0, 1, 10, 2]).replace("]]", "],]"),
        "\ufeff" + table([0, 1, 10, 2]),
        json.dumps([[i, t, v] for i, (t, v) in enumerate(zip(TOKENS, [0, 1, 10, 2], strict=True))]),
        json.dumps({"activations": [[t, v] for t, v in zip(TOKENS, [0, 1, 10, 2], strict=True)]}),
        json.dumps(
            {
                "id": "q",
                "activations": [
                    {"index": i, "token": t, "number": v}
                    for i, (t, v) in enumerate(zip(TOKENS, [0, 1, 10, 2], strict=True))
                ],
            }
        ),
    ],
)
def test_what_a_model_puts_around_or_writes_otherwise_is_no_matter(text):
    np.testing.assert_array_equal(tables.table(text, "q", TOKENS), [0, 1, 10, 2])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (table([0, 1, 2, "many"]), "whole numbers"),
        (table([0, 1, 2, 1e400]), "whole numbers"),
        (table([0, 1, 2, float("nan")]), "whole numbers"),
        (table([0, 1, 2, "٣"]), "whole numbers"),
        (table([0, 1, 2, 3], ("x", "y", "\n", " ü"), id=None), "another request"),
        (json.dumps({"id": "q", "activations": [0, 1, 2, 3]}), "in order"),
        ("[" * 100_000 + "]" * 100_000, "not JSON"),
        ('{"id": "q", "activations": [[0, "a", ' + "9" * 5000 + "]]}", "not JSON|whole numbers"),
        ("```json\n" + table([0, 1, 2, 3])[:-9], "not JSON"),
    ],
)
def test_what_is_no_number_or_of_another_text_is_refused(text, reason):
    with pytest.raises(Unreadable, match=reason):
        tables.table(text, "q", TOKENS)


def test_a_scale_of_nine():
    np.testing.assert_array_equal(tables.table(table([0, 9, 1, 2]), "q", TOKENS, 9), [0, 9, 1, 2])
    with pytest.raises(Unreadable, match="0 to 9"):
        tables.table(table([0, 10, 1, 2]), "q", TOKENS, 9)


@pytest.mark.parametrize(
    "answers", [[1, 0], ["yes", "No"], [True, False], ["1", "0"], [1.0, 0.0], ["true", "FALSE"]]
)
def test_yes_and_no_in_other_words(answers):
    assert tables.verdicts(json.dumps({"id": "q", "answers": answers}), "q", 2) == [True, False]
    assert tables.verdicts(f"Sure: {json.dumps({'answers': answers})}", "q", 2) == [True, False]


@pytest.mark.parametrize("answers", [[1], [1, 0, 1], [1, 2], [1, None], [1, "maybe"], [1, 0.5]])
def test_what_is_neither_yes_nor_no(answers):
    with pytest.raises(Unreadable):
        tables.verdicts(json.dumps({"id": "q", "answers": answers}), "q", 2)


def test_an_id_written_as_a_number_is_the_same():
    text = json.dumps({"id": 12345, "answers": [1]})
    assert tables.verdicts(text, "012345", 1) == [True]
    with pytest.raises(Unreadable, match="another request"):
        tables.verdicts(text, "012346", 1)
