"""Settings, arguments and texts of others: a right answer or one clear sentence."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from hostile_values import ODD, SCRIPT, answer, drawn, fewer
from hypothesis import given, settings
from hypothesis import strategies as st

import polycode_plugins as pc
from polycode_plugins.commands import main
from polycode_plugins.files import guards
from polycode_plugins.runs.gathering import make_metric

DATA = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
NAMES = ["spectrum", "capacity", "action", "mine"]


@settings(drawn, max_examples=120)
@given(
    name=st.sampled_from(NAMES),
    choice=st.integers(0, 20),
    odd=st.sampled_from([*ODD, "path", "huber", (1, 2), (5, 1), [0.5, 3], "float16", 10**6]),
)
def test_settings_of_metrics(name, choice, odd):
    known = [f for f in make_metric(name).options() if f != "label"]
    field = known[choice % len(known)]
    quick = {"mine": {"estimators": ["gaussian"]}, "action": {"path": "rows", "projections": 4}}
    options = {**quick.get(name, {}), field: odd}
    if field == "projections" and odd == 10**6:
        return  # a right setting that takes long
    metric = answer(lambda: make_metric(name, options))
    if metric is not None and name != "mine":
        answer(lambda: metric.measure(DATA))


@pytest.mark.parametrize(
    "given",
    ["spectrum.ranks=5", "spectrum.ranks=1,2,3", "spectrum.seed=abc", "spectrum.positions=up",
     "spectrum.epsilon=null", "spectrum.fit=[]", "spectrum.label=3", "spectrum.eigenvectors=0.5"],
)  # fmt: skip
def test_a_setting_that_is_not_taken_is_one_sentence(given, capsys):
    assert main.main(["analyze", "--limit", "8", "--quiet", "--set", given]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("polycode: ")
    assert "spectrum" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyze", "--option", "device=nowhere"],
        ["analyze", "--option", "dtype=7"],
        ["analyze", "--option", 'device={"a": 1}'],
        ["explain", "--explainer", "ngram", "--set", "size=[]"],
        ["explain", "--explainer", "token-lookup", "--set", "n=-1"],
        ["analyze", "--model", "\x00"],
        ["analyze", "--text", "\x00"],
        ["analyze", "--sites", "[", "--limit", "4"],
        ["report", "\x00"],
        ["check", "\x00:x"],
        ["check", ":"],
        ["check", "os:"],
        ["merge", "/dev/null", "--out", "/dev/null"],
    ],
)
def test_odd_arguments_are_one_sentence(arguments, capsys):
    assert main.main(arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("polycode: ") for line in said) == 1
    assert all(character.isprintable() for line in said for character in line)


# -- texts ----------------------------------------------------------------------------------------

LETTERS = st.one_of(
    st.characters(),
    st.characters(categories=["Cs", "Cc", "Cf"]),
    st.sampled_from([SCRIPT, "\u202e", "\ufeff", "\ud83d", "<|endoftext|>", "\x00", "\r", "é"]),
)


@fewer
@given(st.lists(st.lists(LETTERS, max_size=30).map("".join), min_size=1, max_size=5))
def test_texts(tmp_path_factory, texts):
    folder = tmp_path_factory.getbasetemp()
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    (folder / "texts.txt").write_bytes("\n".join(texts).encode("utf-8", "surrogatepass"))
    for source in (texts, folder / "texts.jsonl", folder / "texts.txt"):
        adapter = _embedded()
        answer(lambda s=source, a=adapter: list(a.batches(s, pc.DataOptions(context=4, limit=4))))


@drawn
@given(st.text(LETTERS.filter(lambda c: len(c) == 1)))
def test_what_is_shown_is_one_printable_line(text):
    assert guards.shown(text).isprintable()


@cache
def _embedded() -> pc.Adapter:
    return pc.load()
