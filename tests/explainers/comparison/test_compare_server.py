"""`polycode compare --explainer openai` from end to end: killed, resumed, priced, stopped."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import forks
import killed_compare
import openai_rules as rules
import pandas as pd
import pytest
from openai_server import KEY

from polycode_plugins.adapters.base import Adapter
from polycode_plugins.commands.main import main
from polycode_plugins.data import TINY_GPT2
from polycode_plugins.explainers.comparison import compare
from polycode_plugins.explainers.comparison.outcome import Comparison
from polycode_plugins.explainers.language_model import Store
from polycode_plugins.loading import load

SITE = ["--sites", "blocks.2.mlp.hook_post", "--n-units", "2", "--quiet"]


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    return load(TINY_GPT2)


@pytest.fixture(autouse=True)
def loaded_once(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "load", lambda model, name: adapter)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of words that are one token each, some of which the server's rules know."""
    draw = random.Random(0)
    words = ["one", "two", "three", "the", "of", "a", "list", "value"]
    assert {"one", "two", "three"} <= set().union(*rules.CONCEPTS.values())
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    lines = [{"text": " ".join(draw.choices(words, k=12))} for _ in range(60)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def asked(url: str, texts: Path, out: Path, model: str = "planted") -> list[str]:
    settings = [f"base_url={url}", f"model={model}", "concurrency=4"]
    flags = [part for s in settings for part in ("--set", s)]
    data = ["--model", str(TINY_GPT2), "--text", str(texts), "--out", str(out)]
    return ["compare", "--explainer", "openai", *SITE, *data, *flags]


def test_killed_and_resumed_it_sends_nothing_twice_and_ends_the_same(server, texts, tmp_path):
    server.delay = 0.02
    out, whole = tmp_path / "killed", tmp_path / "whole"
    store, kills = out / "answers.sqlite", 1
    arguments = [*asked(server.url(), texts, out), "--no-report"]
    done = forks.Program(lambda: killed_compare.program(str(store), kills, arguments)).end()
    assert done.returncode == 0, done.stderr
    at_kills = [int(line) for line in done.stdout.split()[:kills]]
    assert at_kills == sorted(set(at_kills))  # each went on where the one before was killed
    with_answers = Store(store)
    spent = with_answers.spent()
    with_answers.close()
    assert at_kills[-1] < spent.answers == len(server.seen)
    # A request reached the server again only if it was under way when the process died.
    assert sum(server.seen.values()) - spent.answers <= spent.lost <= kills * 4

    assert main([*asked(server.url(), texts, whole, "another"), "--no-report"]) == 0
    frames = [pd.read_parquet(folder / "units.parquet") for folder in (out, whole)]
    counted = ["requests", "prompt_tokens", "completion_tokens"]
    pd.testing.assert_frame_equal(*(f.drop(columns=counted) for f in frames))
    assert frames[0]["correlation"].notna().any()


def test_a_dry_run_prices_what_the_run_then_takes_and_leaves_nothing(
    server, texts, tmp_path, capsys
):
    out, prices = tmp_path / "run", tmp_path / "prices.json"
    prices.write_text('{"planted": {"in": 1000, "out": 2000}}')
    arguments = [*asked(server.url(), texts, out), "--prices", str(prices)]
    assert main([*arguments, "--dry-run", "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert not server.seen
    assert not out.exists()

    assert main([*arguments, "--budget", "20"]) == 2
    said = capsys.readouterr().err
    assert "the budget of $20 is spent" in said
    assert len(said.strip().splitlines()) == 1
    assert main([*arguments, "--budget", str(counted["dollars"] + 20)]) == 0
    assert set(server.seen.values()) == {1}  # the second run went on where the first stopped
    answers = Store(out / "answers.sqlite")  # nobody holds it any more
    spent = answers.spent()
    answers.close()
    probes = 12  # requests that no dry run knows of, at most
    assert counted["requests"] * 0.5 < spent.answers <= counted["requests"] + probes
    assert 20 < spent.dollars <= counted["dollars"] + 20
    said, taken = capsys.readouterr().err, Comparison.load(out).run["spent"]
    assert taken["store"]["dollars"] == pytest.approx(spent.dollars)
    assert taken["store"]["prompt_tokens"] == spent.tokens_in
    before = taken["store"]["dollars"] - taken["run"]["dollars"]
    assert 0 < before <= 20  # what the run that was stopped had spent
    assert f"${taken['run']['dollars']:,.4f} in this run" in said
    assert f"${spent.dollars:,.4f} in its store of answers" in said
    sent = sum(server.seen.values())
    capsys.readouterr()
    assert main([*arguments, "--dry-run", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert sum(server.seen.values()) == sent
    assert (again["requests"], again["dollars"]) == (0, 0)
    assert main([*arguments, "--dry-run", "--json", "--seed", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] > 0  # other draws are other requests
    assert Comparison.load(out).run["explainer"]["model"] == "planted"

    assert any(f"Bearer {KEY}" in head for head in server.headers)  # it was sent, and is nowhere
    for path in out.rglob("*"):
        assert KEY.encode() not in path.read_bytes(), path


def test_one_command_with_a_server_and_a_judge_of_its_own(server, texts, tmp_path, capsys):
    arguments = ["compare", "--model", str(TINY_GPT2), "--text", str(texts), *SITE]
    server_of = ["--explainer", "openai", "--base-url", server.url(), "--set", "concurrency=4"]
    models = ["--explainer-model", "planted", "--judge-model", "planted-judge"]
    out = tmp_path / "run"
    assert main([*arguments, *server_of, *models, "--out", str(out)]) == 0
    asked_of = Counter(body["model"] for body in server.bodies)
    assert asked_of["planted-judge"] > asked_of["planted"] > 0
    described = Comparison.load(out).run["explainer"]
    assert (described["model"], described["simulator_model"]) == ("planted", "planted-judge")
    spent = Comparison.load(out).run["spent"]
    assert spent["run"] == spent["store"]
    assert spent["run"]["requests"] == sum(server.seen.values())
    assert spent["run"]["dollars"] is None
    said = capsys.readouterr().err
    assert f"answers: {spent['run']['requests']:,} requests, " in said
    assert "$" not in said
    report = (out / "report.html").read_text()
    assert f"{spent['run']['prompt_tokens']:,} tokens sent" in report

    assert main([*arguments, *server_of, "--set", "base_url=http://other/v1"]) == 2
    assert "--base-url and --set base_url=... say the same" in capsys.readouterr().err


def test_explanations_of_people_are_scored_and_sent_on(server, texts, tmp_path, capsys):
    """Two neurons that people explained; nothing is asked for but simulations and judgements."""
    said, out = tmp_path / "people.csv", tmp_path / "run"
    said.write_text('unit,explanation\n7,"numbers written as words"\n31,names of colours\n')
    lines, bodies = tmp_path / "x.jsonl", tmp_path / "y.jsonl"
    arguments = [
        *("explain", "--sites", "blocks.2.mlp.hook_post", "--quiet", "--explanations", str(said)),
        *("--model", str(TINY_GPT2), "--text", str(texts), "--out", str(out)),
        *("--explainer", "openai", "--base-url", server.url(), "--explainer-model", "planted"),
        *("--export", str(lines), "--export-features", str(bodies), "--model-id", "tiny"),
    ]
    assert main(arguments) == 0
    assert "neuron 31\n  names of colours" in capsys.readouterr().out
    prompts = [str(body.get("messages") or body.get("prompt")) for body in server.bodies]
    assert any("numbers written as words" in p for p in prompts)
    made = Comparison.load(out)
    assert [u.name for u in made] == ["neuron 7", "neuron 31"]
    assert made.run["explainer"]["explainer"] == "written"
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(r["modelId"], r["layer"], r["index"]) for r in rows] == [
        ("tiny", "2", "7"),
        ("tiny", "2", "31"),
    ]
    (body,) = [json.loads(line) for line in bodies.read_text().splitlines()]
    assert (body["modelId"], body["source"], len(body["features"])) == ("tiny", "2", 2)
    assert main(["explain", "--explanations", str(said), "--quiet"]) == 2
    assert "reads its own tables and no text" in capsys.readouterr().err
