"""A form of answers is the same in every notation: what fits fits all, what does not fits none."""

from __future__ import annotations

import json
import re

import pytest

from polycode_plugins.explainers.language_model.answers import tables
from polycode_plugins.explainers.language_model.restrictions import list_shape, table_shape

TOKENS = ("a", ' "b"', "\n", "\\", "[1, 2]", " é", ".*+?(|)^${}", "")


def text(values) -> str:
    rows = [[i, t, v] for i, (t, v) in enumerate(zip(TOKENS, values, strict=True))]
    return json.dumps({"id": "q1", "activations": rows}, ensure_ascii=False)


def test_a_table_is_of_its_own_form_and_is_read():
    shape, values = table_shape("q1", TOKENS, 10), [0, 10, 9, 1, 2, 3, 4, 5]
    assert re.fullmatch(shape.regex(), text(values))
    assert shape.keeps(text(values))
    assert shape.keeps(json.dumps(json.loads(text(values)), indent=1))
    assert tables.table(text(values), "q1", TOKENS).tolist() == values


@pytest.mark.parametrize("values", [[0, 11, 0, 0, 0, 0, 0, 0], [0, -1, 0, 0, 0, 0, 0, 0]])
def test_other_numbers_are_not(values):
    assert not table_shape("q1", TOKENS, 10).keeps(text(values))
    assert not table_shape("q1", TOKENS, 9).keeps(text([10] * 8))


def test_a_list_of_verdicts():
    shape = list_shape("q7", 3)
    assert shape.keeps('{"id": "q7", "answers": [1, 0, 1]}')
    for other in ('{"id": "q7", "answers": [1, 0]}', '{"id": "x", "answers": [1, 0, 1]}', "Hello"):
        assert not shape.keeps(other)
    assert shape.grammar() == (
        'root ::= "{\\"id\\": \\"q7\\", \\"answers\\": [" choice0 ", " choice0 ", " choice0 "]}"\n'
        'choice0 ::= "0" | "1"'
    )


def test_every_way_to_ask_for_it():
    shape = list_shape("q7", 1)
    assert shape.fields("") == {}
    assert shape.fields("parts") == {"parts": ['{"id": "q7", "answers": [', ["0", "1"], "]}"]}
    assert shape.fields("structured_outputs")["structured_outputs"]["regex"] == shape.regex()
    assert shape.fields("json") == {"response_format": {"type": "json_object"}}
    exact = shape.fields("exact")["response_format"]["json_schema"]["schema"]
    assert list(exact["properties"]) == ["id", "answers"]
    loose = shape.fields("schema")["response_format"]["json_schema"]["schema"]
    # The same for all requests, since servers compile each schema that they have not seen.
    assert loose == list_shape("q8", 5).fields("schema")["response_format"]["json_schema"]["schema"]
