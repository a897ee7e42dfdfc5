"""A trained model explains, simulates and judges: whole comparisons, offline.

SmolLM2-135M-Instruct, which `scripts/real_networks.py` gets, in this process and behind llama.cpp's
server. It understands little; what is tested is that every answer is read, counted and kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from places import HELPERS

from polycode_plugins.commands.main import main
from polycode_plugins.explainers.comparison.outcome import Comparison
from polycode_plugins.explainers.language_model import Store

CACHE = Path(os.environ.get("POLYCODE_CACHE") or Path(__file__).parents[3] / "build" / "real")
FOLDER = CACHE / "smollm2"
FILE = FOLDER / "SmolLM2-135M-Instruct.Q4_1.gguf"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (FOLDER / "model.safetensors").is_file() or not FILE.is_file(),
        reason=f"SmolLM2 is not in {CACHE}: scripts/real_networks.py gets it, or POLYCODE_CACHE "
        "says where it is",
    ),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """llama.cpp's server, with one slot and one thread."""
    pytest.importorskip("xllamacpp", reason="xllamacpp, llama.cpp's server, is not installed")
    log = tmp_path_factory.mktemp("llama") / "log"
    script = HELPERS / "llama_server.py"
    with log.open("w") as into:
        process = subprocess.Popen(
            [sys.executable, str(script), str(FILE)],
            stdout=subprocess.PIPE, stderr=into, text=True,
        )  # fmt: skip
    try:
        lines = iter(process.stdout.readline, "")
        found = next((line.split()[-1] for line in lines if line.startswith("listening at")), None)
        assert found, log.read_text()[-2000:]
        yield f"{found}/v1"
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(params=["in this process", "llama.cpp"])
def url(request):
    if request.param == "llama.cpp":
        return request.getfixturevalue("address")
    return f"local:{FOLDER}"


def test_a_whole_comparison_and_the_same_out_of_its_store(url, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    out = tmp_path / "run"
    command = [
        "compare", "--sites", "blocks.2.mlp.hook_post", "--limit", "300", "--context", "12",
        "--n-units", "1", "--floors", "token-lookup,oracle", "--explainer", "openai",
        "--explainer-model", "smollm2", "--base-url", url, "--out", str(out), "--quiet",
    ]  # fmt: skip
    assert main(command) == 0
    comparison = Comparison.load(out)
    by_url = comparison.run["simulator"]
    expected = ("prompt-logprobs", "parts") if url.startswith("local") else (
        "generated-logprobs", "grammar")  # fmt: skip
    assert (by_url["simulator"], by_url["restriction"]) == expected
    assert comparison.run["judge"]["judge"] == "chat"
    for unit in comparison:
        evaluation = unit.evaluation
        explanation = evaluation.explanation
        assert explanation.text if explanation.state == "ok" else explanation.reason
        # Held to a form, even a weak model is read at every text.
        assert {s.state for s in evaluation.simulations} <= {"ok"}
        assert evaluation.scores.n_unjudged == 0
        assert evaluation.cost.prompt_tokens > 0
    assert {u.evaluation.explanation.state for u in comparison} & {"ok"}

    before = spent(out)
    assert before.lost == 0
    assert main([*command, "--fresh"]) == 0
    after = spent(out)
    asked_again = sum(u.evaluation.explanation.state == "failed" for u in comparison)
    # A failed explanation is asked for again; if it comes, its unit is simulated and judged.
    sent = after.answers - before.answers + after.failures - before.failures
    assert sent <= 20 * asked_again
    again = Comparison.load(out)
    columns = ["correlation", "detection", "requests", "prompt_tokens", "completion_tokens"]
    first, second = (c.to_dataframe()[columns] for c in (comparison, again))
    good = [u.evaluation.explanation.state == "ok" for u in comparison]
    pd.testing.assert_frame_equal(first[good], second[good])
    assert "report: " in capsys.readouterr().err


def spent(out):
    store = Store(out / "answers.sqlite")
    found = store.spent()
    store.close()
    return found
