"""The example package and the tutorial that builds it: they are the same, and they work."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from places import ROOT

import polycode_plugins as pc
from polycode_plugins import plugins, testing
from polycode_plugins.commands import main

PUBLIC = ("adapters", "experiments", "explainers", "metrics", "pages", "testing")
EXAMPLE = ROOT / "examples" / "polycode-example"
TUTORIAL = (ROOT / "docs" / "write-a-plugin.md").read_text()
ABOUT = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
FILES = [
    path.relative_to(EXAMPLE).as_posix()
    for path in sorted([*EXAMPLE.rglob("*.py"), EXAMPLE / "pyproject.toml"])
    if path.name != "__init__.py" and "build" not in path.parts
]


def blocks() -> dict[str, list[str]]:
    """The tutorial's pieces of each file."""
    found: dict[str, list[str]] = {}
    for name, text in re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```$', TUTORIAL, re.M | re.S):
        found.setdefault(name, []).append(text)
    return found


@pytest.mark.parametrize("name", FILES)
def test_the_tutorial_builds_the_file(name):
    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if line]

    assert lines("".join(blocks()[name])) == lines((EXAMPLE / name).read_text())


def test_the_tutorial_builds_no_other_file():
    assert sorted(blocks()) == sorted(FILES)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as pip leaves it (tests/test_package.py lets pip do it)."""
    info = tmp_path / "polycode_example-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polycode-example\nVersion: 0.1\n")
    groups = ABOUT["project"]["entry-points"]
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
            for group, points in groups.items()
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))


@pytest.mark.parametrize("file", sorted((EXAMPLE / "src").rglob("*.py")), ids=lambda p: p.name)
def test_it_imports_public_names_alone(file):
    public = {"polycode_plugins", *(f"polycode_plugins.{name}" for name in PUBLIC)}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("polycode_plugins"):
            assert node.module in public
            assert {name.name for name in node.names} <= set(import_module(node.module).__all__)
        elif isinstance(node, ast.Import):
            named = {name.name for name in node.names if name.name.startswith("polycode_plugins")}
            assert named <= public


def test_its_figure_is_listed_and_judged(installed, tmp_path, capsys):
    assert main.main(["reproduce", "--list"]) == 0
    assert "echo-sparseness" in capsys.readouterr().out
    arguments = ["echo-sparseness", "--scale", "smoke", "--out", str(tmp_path), "--json"]
    assert main.main(["reproduce", *arguments]) == 0
    (figure,) = json.loads(capsys.readouterr().out)
    assert figure["verdicts"][0]["effect"] < 0
    assert (tmp_path / "echo-sparseness" / "echo-sparseness.png").is_file()
    assert "echo-sparseness" in (tmp_path / "index.html").read_text()


def test_its_metric_has_a_chart_of_its_own(installed, tmp_path):
    analysis = pc.analyze("echo-24", metrics=["sparseness"], progress=False)
    page = analysis.report(tmp_path / "report.html").read_text()
    assert "Sparseness of the units" in page
    assert "A flat curve means that all are alike." in page


NAMES = {"adapters": "echo", "metrics": "sparseness", "explainers": "one-token"}


@pytest.mark.parametrize("kind", NAMES)
def test_each_plugin_keeps_its_contract(installed, kind, capsys):
    plugin = plugins.get(kind, NAMES[kind])
    assert plugin.distribution == "polycode-example"
    assert plugins.load_case(plugin) is not None
    assert main.main(["check", NAMES[kind], "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    reasons = {c["reason"] for c in report["checks"] if c["state"] == "skipped"}
    assert reasons <= {
        "the case names no in_place= site",
        "the case names no repeated= sites",
        "it says of no number what a sample adds to its error",
    }


def test_the_analysis_of_the_tutorial(installed, tmp_path, capsys):
    (command,) = re.findall(r"^polycode (analyze .*)$", TUTORIAL, re.M)
    arguments = [str(tmp_path / "run") if a == "my-run" else a for a in command.split()]
    assert main.main([*arguments, "--quiet"]) == 0
    assert "sparseness" in capsys.readouterr().out
    analysis = pc.Analysis.load(tmp_path / "run")
    assert list(analysis) == ["state"]
    assert analysis["state", "sparseness"].n_samples == 200 * 12
    assert 0 < analysis["state", "sparseness"].sparseness < 1
    assert analysis["state"]["spectrum"].width == 24
    assert "sparseness" in (tmp_path / "run" / "report.html").read_text()


def test_the_python_of_the_tutorial(installed, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", TUTORIAL, re.M | re.S)
    exec(compile(code, "write-a-plugin.md", "exec"), {})
    assert 0 < float(capsys.readouterr().out) < 1


def test_the_explainer_beats_nothing_and_says_what_it_cannot(installed):
    from polycode_plugins.explainers import evaluate
    from polycode_plugins.testing.explainers import planted

    explainer = plugins.load("explainers", "one-token")()
    one, several, silent, _ = evaluate(planted(), explainer, floors=())
    assert one.explanation.text == "the token ' cat', at 10.0 of 10"
    assert one.scores.values["correlation"] == pytest.approx(1.0)
    assert 0.5 < several.scores.values["correlation"] < 1
    assert silent.explanation.reason == "the unit is silent on every text"


def test_what_the_adapter_does_not_read_is_refused(installed):
    with pytest.raises(pc.ModelError, match="reads an EchoNetwork"):
        pc.load("echo-0", "echo")
    assert pc.load("echo-7").model.drive.out_features == 7


def test_the_kit_finds_what_is_broken_in_a_copy(installed, monkeypatch):
    from polycode_example import cases
    from polycode_example.metric import Magnitudes

    monkeypatch.setattr(Magnitudes, "merge", lambda self, other: None)
    report = testing.run(cases.metric())
    assert report.count("failed") > 0
