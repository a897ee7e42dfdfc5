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


def build(source: Path, out: Path, *options: str) -> list[Path]:
    """A source archive, and a wheel made from it, unless options say otherwise."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    command += options
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
    example = build(EXAMPLE, tmp_path_factory.mktemp("example"), "--wheel")
    return bare_venv().make(tmp_path_factory.mktemp("bare"), built[1], *example)


def bare_venv() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bare_venv", ROOT / "scripts" / "bare_venv.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMANDS = {
    "plugins": ["plugins", "--json"],
    **{name: ["check", name] for name in ("echo", "sparseness", "one-token")},
    "used": ["analyze", "--model", "echo-24", "--sites", "state", "--metrics",
             "sparseness,spectrum", "--out", "run", "--no-report", "--json"],
    "transformer-lens": ["analyze", "--model", "gpt2", "--quiet"],
    "torchvision": ["analyze", "--model", "resnet18", "--adapter", "torchvision", "--quiet"],
    "nnsight": ["analyze", "--model", "gpt2", "--adapter", "nnsight", "--quiet"],
    "vllm": ["analyze", "--model", "vllm:gpt2", "--quiet"],
    "openai": ["explain", "--explainer", "openai", "--set", "model=x", "--n-units", "1", "--quiet"],
}  # fmt: skip
# Everything in forks of one bare process, none of which pays for torch again; nor do plugins that
# are tried.
PROGRAM = """
import importlib, io, json, os, sys, tempfile, types
import torch
import polycode_plugins as pc
import pandas, scipy.stats
import polycode_plugins.explainers, polycode_plugins.metrics, polycode_plugins.testing
from polycode_plugins.commands.main import program
from polycode_plugins.plugins import trial

def forked(work):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            try:
                status = work()
                sys.stdout.flush()
            except SystemExit as error:
                status = error.code
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (out, err):
            file.seek(0)
        return [status, out.read().decode(), err.read().decode()]

def served(task):
    def work():
        # That of a command may go elsewhere.
        sys.stdin, sys.stdout = io.StringIO(task), open(1, "w", closefd=False)
        trial.serve()
        return 0
    return types.SimpleNamespace(**dict(zip(("returncode", "stdout", "stderr"), forked(work))))

trial._served = served

def command(arguments):
    sys.argv = ["polycode", *arguments]
    return program()

def where():
    absent = []
    for name in {absent!r}:
        try: importlib.import_module(name)
        except ImportError: absent.append(name)
    print(json.dumps([pc.__file__, pc.__version__, absent, pc.analyze.__name__]))
    return 0

def generic():
    model = torch.nn.Sequential(torch.nn.Linear(6, 24), torch.nn.Tanh())
    metric = pc.metrics.Spectrum(fit="huber", ranks=(1, 24))
    print(pc.analyze(model, torch.randn(90, 6), metric, "1")["1", "spectrum"].width)
    return 0

done = {{name: forked(lambda: command(given)) for name, given in {commands!r}.items()}}
print(json.dumps(done | {{"where": forked(where), "generic": forked(generic)}}))
"""


@pytest.fixture(scope="module")
def done(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """Status, what was printed and what was said, of everything that is done there."""
    home = tmp_path_factory.mktemp("home")
    script = PROGRAM.format(absent=ABSENT, commands=COMMANDS)
    made = subprocess.run(
        [bare, "-c", script], capture_output=True, text=True, check=False, cwd=home,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "HF_HUB_OFFLINE": "1",
             "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def printed(done: dict[str, tuple[int, str, str]], name: str) -> str:
    status, out, err = done[name]
    assert status == 0, out + err
    assert "Traceback" not in err
    return out


def test_the_command_is_there(bare, tmp_path):
    polycode = subprocess.run(
        [bare.parent / "polycode", "--help"], capture_output=True, text=True, check=True,
        cwd=tmp_path,
    )  # fmt: skip
    assert "analyze" in polycode.stdout


def test_it_imports_from_the_wheel_without_any_extra(bare, done):
    home, version, absent, _ = json.loads(printed(done, "where"))
    assert Path(home).is_relative_to(bare.parents[1])
    assert version == __version__
    assert absent == ABSENT


def test_plugins_are_listed_the_example_too_and_none_is_broken(done):
    listed = json.loads(printed(done, "plugins"))
    found = {(p["kind"], p["name"]): p for p in listed}
    for kind, name in (("adapter", "echo"), ("metric", "sparseness"), ("explainer", "one-token")):
        assert found[kind, name]["distribution"] == "polycode-example"
    assert ("metric", "spectrum") in found
    assert [p["name"] for p in listed if p["broken"]] == []


@pytest.mark.parametrize("name", ["echo", "sparseness", "one-token"])
def test_the_example_passes_the_kit(done, name):
    assert " 0 failed" in printed(done, name)


def test_the_example_is_used(done):
    (row,) = json.loads(printed(done, "used"))
    assert 0 < row["sparseness.sparseness"] < 1
    assert row["spectrum.width"] == 24


def test_the_generic_adapter_with_the_spectrum(done):
    assert printed(done, "generic").strip() == "24"


@pytest.mark.parametrize("extra", ["transformer-lens", "torchvision", "nnsight", "vllm", "openai"])
def test_what_needs_an_extra_says_which(done, extra):
    status, out, said = done[extra]
    assert status == 2, out + said
    assert len(said.splitlines()) == 1
    assert f"pip install 'polycode-plugins[{'' if extra == 'openai' else extra}" in said
