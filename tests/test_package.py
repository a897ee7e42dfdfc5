"""The wheel and the source archive: what is in them, and that they work where no extra is."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import pytest

from polycode_plugins import __version__

pytestmark = pytest.mark.packaging
ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "polycode-example"
EXTRAS = {
    "transformer-lens", "torchvision", "nnsight", "openai", "torchmetrics", "report", "vllm",
    "trainer", "lightning",
}  # fmt: skip
ABSENT = ["transformer_lens", "transformers", "torchvision", "nnsight", "aiohttp", "plotly"]


def build(source: Path, out: Path) -> list[Path]:
    """A source archive, and a wheel made from it."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    source, wheel = sorted(
        build(ROOT, tmp_path_factory.mktemp("dist")), key=lambda p: p.suffix == ".whl"
    )
    return source, wheel


@pytest.fixture(scope="module")
def inside(built: tuple[Path, Path]) -> list[str]:
    with zipfile.ZipFile(built[1]) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def about(built: tuple[Path, Path]) -> Message:
    with zipfile.ZipFile(built[1]) as archive:
        text = archive.read(f"polycode_plugins-{__version__}.dist-info/METADATA").decode()
    return Parser().parsestr(text)


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(inside):
    assert {name.split("/")[0] for name in inside} == {
        "polycode_plugins",
        f"polycode_plugins-{__version__}.dist-info",
    }
    folder = ROOT / "polycode_plugins"
    ours = {
        p.relative_to(ROOT).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert {n for n in inside if n.startswith("polycode_plugins/")} == ours
    assert "polycode_plugins/py.typed" in inside
    assert any(n.endswith("tiny-gpt2/model.safetensors") for n in inside)
    assert any(n.endswith(".html.j2") for n in inside)
    assert any(n.endswith("licenses/LICENSE") for n in inside)


def test_the_source_archive_holds_what_it_takes_to_test_it(built):
    with tarfile.open(built[0]) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    for name in (
        "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt",
        "tests/test_package.py", "examples/polycode-example/pyproject.toml",
        "docs/write-a-plugin.md", "benchmarks/import_time.py", "scripts/bare_venv.py",
    ):  # fmt: skip
        assert name in names
    unwanted = re.compile(r"(^|/)(out|dist|build|\.venv|__pycache__|\.git|site)(/|$)|\.pyc$")
    assert not [n for n in names if unwanted.search(n)]


def test_the_metadata_is_complete(about, inside):
    assert about["Name"] == "polycode-plugins"
    assert about["Version"] == __version__
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.11"
    assert len(about["Summary"]) < 200
    assert about["Description-Content-Type"] == "text/markdown"
    assert "polycode analyze" in about.get_payload()
    assert set(about.get_all("Provides-Extra")) == EXTRAS | {"all", "dev"}
    classifiers = about.get_all("Classifier")
    assert "Typing :: Typed" in classifiers
    known = importlib.util.find_spec("trove_classifiers")
    if known is not None:
        from trove_classifiers import classifiers as right

        assert set(classifiers) <= right


def test_every_dependency_has_an_upper_bound(about):
    for text in about.get_all("Requires-Dist"):
        assert "<" in text or text.startswith("polycode-plugins["), text


@pytest.fixture(scope="module")
def bare(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with both wheels, the core dependencies and no extra."""
    example = [p for p in build(EXAMPLE, tmp_path_factory.mktemp("example")) if p.suffix == ".whl"]
    return bare_venv().make(tmp_path_factory.mktemp("bare"), built[1], *example)


def bare_venv() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bare_venv", ROOT / "scripts" / "bare_venv.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def polycode(bare: Path, tmp_path: Path):
    def run(*arguments: object, status: int = 0) -> str:
        done = subprocess.run(
            [bare.parent / "polycode", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


@pytest.mark.slow
def test_it_imports_from_the_wheel_without_any_extra(bare, tmp_path):
    script = (
        "import importlib, json, sys, polycode_plugins as pc\n"
        "absent = []\n"
        f"for name in {ABSENT!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError: absent.append(name)\n"
        "print(json.dumps([pc.__file__, pc.__version__, absent, pc.analyze.__name__]))\n"
    )
    done = subprocess.run(
        [bare, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    home, version, absent, _ = json.loads(done.stdout)
    assert Path(home).is_relative_to(bare.parents[1])
    assert version == __version__
    assert absent == ABSENT


@pytest.mark.slow
def test_plugins_are_listed_the_example_too_and_none_is_broken(polycode):
    listed = json.loads(polycode("plugins", "--json"))
    found = {(p["kind"], p["name"]): p for p in listed}
    for kind, name in (("adapter", "echo"), ("metric", "sparseness"), ("explainer", "one-token")):
        assert found[kind, name]["distribution"] == "polycode-example"
    assert ("metric", "spectrum") in found
    assert [p["name"] for p in listed if p["broken"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["echo", "sparseness", "one-token"])
def test_the_example_passes_the_kit(polycode, name):
    assert " 0 failed" in polycode("check", name)


@pytest.mark.slow
def test_the_example_is_used(polycode, tmp_path):
    common = ["--model", "echo-24", "--sites", "state", "--metrics", "sparseness,spectrum"]
    (row,) = json.loads(
        polycode("analyze", *common, "--out", tmp_path / "run", "--no-report", "--json")
    )
    assert 0 < row["sparseness.sparseness"] < 1
    assert row["spectrum.width"] == 24


@pytest.mark.slow
def test_the_generic_adapter_with_the_spectrum(bare, tmp_path):
    script = (
        "import torch, polycode_plugins as pc\n"
        "model = torch.nn.Sequential(torch.nn.Linear(6, 24), torch.nn.Tanh())\n"
        "metric = pc.metrics.Spectrum(fit='huber', ranks=(1, 24))\n"
        "print(pc.analyze(model, torch.randn(90, 6), metric, '1')['1', 'spectrum'].width)\n"
    )
    done = subprocess.run(
        [bare, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "24"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["analyze", "--model", "gpt2", "--quiet"], "transformer-lens"),
        (["analyze", "--model", "resnet18", "--adapter", "torchvision", "--quiet"], "torchvision"),
        (["analyze", "--model", "gpt2", "--adapter", "nnsight", "--quiet"], "nnsight"),
        (["analyze", "--model", "vllm:gpt2", "--quiet"], "vllm"),
        (["explain", "--explainer", "openai", "--set", "model=x", "--n-units", "1", "--quiet"], ""),
    ],
)  # fmt: skip
def test_what_needs_an_extra_says_which(polycode, arguments, extra):
    said = polycode(*arguments, status=2)
    assert len(said.splitlines()) == 1
    assert f"pip install 'polycode-plugins[{extra}" in said
