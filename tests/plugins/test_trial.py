"""Plugins of others, tried in a process of their own: none of them ends a run."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import forks
import pytest
import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins import loading, plugins
from polycode_plugins.errors import PolycodeWarning
from polycode_plugins.plugins import trial


def test_broken_plugins_take_nothing_down(install):
    install("a-missing", {"metrics/a-missing": "a_missing:M"}, {"a_missing": "import nowhere_x"})
    install("b-syntax", {"metrics/b-syntax": "b_syntax:M"}, {"b_syntax": "def ("})
    install("c-exits", {"metrics/c-exits": "c_exits:M"}, {"c_exits": "import os; os._exit(3)"})
    install("d-attribute", {"metrics/d-attribute": "d_attribute:M"}, {"d_attribute": "print('hi')"})
    install("e-absent", {"metrics/e-absent": "e_absent:M"})
    install(
        "f-works", {"metrics/f-works": "f_works:M"}, {"f_works": "print('noise')\nclass M: ..."}
    )
    found = [p for p in plugins.find("metrics") if p.is_foreign or p.name == "spectrum"]
    broken = {name: why for (_, _, name), why in plugins.broken(found).items()}
    assert set(broken) == {"a-missing", "b-syntax", "c-exits", "d-attribute", "e-absent"}
    assert "nowhere_x" in broken["a-missing"]
    assert "SyntaxError" in broken["b-syntax"]
    assert "ends the process (status 3)" in broken["c-exits"]
    assert "AttributeError" in broken["d-attribute"]
    assert "reinstall" in broken["e-absent"]


SICK = {
    "leaves": ("import sys; sys.exit(0)", "ends the process (SystemExit: 0)"),
    "vanishes": ("import os; os._exit(0)", "ends the process (status 0)"),
    "dies": ("import os; os.kill(os.getpid(), 11)", "ends the process (status -11)"),
    "interrupts": ("raise KeyboardInterrupt", "raises KeyboardInterrupt"),
    "odd": ("raise GeneratorExit", "GeneratorExit"),
    "asks": ("input('trust me? ')\nclass Adapter: ...", "EOFError"),
    "daemon": (
        "import os\nif os.fork() == 0:\n    import time; os.setsid(); time.sleep(30)\nos._exit(7)",
        "ends the process (status 7)",
    ),
}  # fmt: skip
HANGING = {
    "hangs": "import time; time.sleep(600)",
    "closes": "import os, time\nos.closerange(0, 100); time.sleep(600)",
}
ACCEPTS = "class Adapter:\n    @classmethod\n    def accepts(cls, model):\n        "


@pytest.fixture
def untried(forked_trials, monkeypatch):
    monkeypatch.setattr(loading, "_tried", {})


def test_what_hangs_is_passed_over(install, untried, monkeypatch):
    monkeypatch.setattr(trial, "IMPORT_SECONDS", 1.0)
    for name, source in HANGING.items():
        install(name, {f"adapters/{name}": f"{name}_x:Adapter"}, {f"{name}_x": source})
    with pytest.warns(PolycodeWarning) as said:
        named = loading._natural_adapter(loading.embedded_model())
    assert named == "transformer-lens"
    texts = [str(one.message) for one in said]
    for name in HANGING:
        (text,) = [t for t in texts if f"'{name}' of {name}" in t]
        assert "importing it takes longer than 1 s; reinstall or update it" in text


def test_what_was_not_asked_for_ends_no_run(install, untried, capfd):
    for name, (source, _) in SICK.items():
        install(name, {f"adapters/{name}": f"{name}_x:Adapter"}, {f"{name}_x": source})
    install(
        "exits", {"adapters/exits": "exits_x:Adapter"}, {"exits_x": ACCEPTS + "raise SystemExit(0)"}
    )
    install(
        "prints",
        {"adapters/prints": "prints_x:Adapter"},
        {"prints_x": "print('HELLO')\n" + ACCEPTS + "print('HO')"},
    )
    with pytest.warns(PolycodeWarning) as said:
        named = loading._natural_adapter(loading.embedded_model())
    assert named == "transformer-lens"
    texts = [str(one.message) for one in said]
    for name, (_, why) in {**SICK, "exits": ("", "its accepts fails")}.items():
        (text,) = [t for t in texts if f"'{name}' of {name}" in t]
        assert why in text
        assert "reinstall or update it: pip install --upgrade" in text
    assert len(texts) == len(SICK) + 1
    # A live model: they were tried once, and what imports is asked here.
    assert not {f"{name}_x" for name in SICK} & set(sys.modules)
    with pytest.warns(PolycodeWarning) as said:
        assert loading._natural_adapter(nn.Linear(2, 2)) == "module"
    assert any("exits" in str(one.message) for one in said)
    out, _ = capfd.readouterr()
    assert out == ""


def test_a_plugin_is_not_spoilt_by_another(install, forked_trials):
    """The first one takes away what the second one imports."""
    install(
        "a-breaks",
        {"metrics/a-breaks": "a_breaks:M"},
        {"a_breaks": "import torch; torch.nn = None"},
    )
    install(
        "b-works",
        {"metrics/b-works": "b_works:M"},
        {"b_works": "from torch import nn\nclass M(nn.Module): ..."},
    )
    found = [p for p in plugins.find("metrics") if p.distribution == "b-works"]
    first = [p for p in plugins.find("metrics") if p.distribution == "a-breaks"]
    outcomes = plugins.tried([*first, *found])
    assert outcomes[1].broken is None
    assert "no attribute 'M'" in str(outcomes[0].broken)


def test_a_declared_adapter_is_imported_only_for_what_it_reads(install, monkeypatch, tmp_path):
    source = (
        f"open({str(tmp_path / 'imported')!r}, 'a').write('x')\n"
        + ACCEPTS
        + "return model == 'echo-7'"
    )
    entries = {
        "adapters/choosy": "choosy_x:Adapter",
        "reads/echo-*": "choosy_x:Adapter",
        "reads/torch.nn.modules.rnn.*": "choosy_x:Adapter",
    }
    install("choosy", entries, {"choosy_x": source})
    tried = []
    monkeypatch.setattr(
        plugins,
        "tried",
        lambda found, model: tried.extend(found) or [plugins.Outcome(None, True) for _ in found],
    )
    monkeypatch.setattr(loading, "_tried", {})
    assert loading._natural_adapter(nn.Linear(2, 2)) == "module"
    assert loading._natural_adapter(loading.embedded_model()) == "transformer-lens"
    assert not tried
    assert not (tmp_path / "imported").exists()
    assert loading._natural_adapter("echo-7") == "choosy"
    (plugin,) = tried
    assert plugin.reads == ("echo-*", "torch.nn.modules.rnn.*")
    assert plugin.may_read(nn.LSTM(1, 1))  # by a base's name
    assert not plugin.may_read(nn.Linear(1, 1))


def test_who_asks_for_a_plugin_that_exits_is_told(install):
    install("leaver", {"metrics/leaver": "leaver_x:M"}, {"leaver_x": "import sys; sys.exit(0)"})
    with pytest.raises(
        pc.PluginError,
        match=r"'leaver' of leaver cannot be used: it ends the process \(SystemExit: 0\); rei",
    ):
        plugins.load("metrics", "leaver")
    source = (
        "class Adapter:\n    name = 'quitter'\n    def __init__(self, model): raise SystemExit(0)"
    )
    install("quitter", {"adapters/quitter": "quitter_x:Adapter"}, {"quitter_x": source})
    with pytest.raises(pc.PluginError, match="the adapter 'quitter' ends the process"):
        pc.load(torch.nn.Linear(1, 1), "quitter")


@pytest.fixture
def answered():
    """The handler of a program in the foreground; one in the background has none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_persons_interruption_stays_one(answered):
    def press():
        with plugins.contained():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_an_interruption_that_nobody_pressed_is_the_plugins(answered, handler):
    signal.signal(signal.SIGINT, handler)
    with pytest.raises(pc.PluginError, match="raises KeyboardInterrupt"), plugins.contained():
        raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_command_says_who_was_passed_over_and_who_left(install, forked_trials, tmp_path):
    install(
        "shouts",
        {"adapters/shouts": "shouts_x:Adapter"},
        {"shouts_x": "print('HELLO')\nraise SystemExit"},
    )
    source = (
        "import os\nfrom polycode_plugins.metrics import Spectrum\nclass M(Spectrum):\n"
        "    name = 'loud'\n"
        "    def compute(self, *given):\n        print('HI'); os.system('echo HO')\n"
        "        return super().compute(*given)\n"
    )
    install("loud", {"metrics/loud": "loud_x:M"}, {"loud_x": source})
    given = ["analyze", "--limit", "60", "--quiet", "--json", "--sites", "blocks.2.hook_resid_post"]
    done = forks.command(*given, "--metrics", "loud")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[{")
    assert done.stdout.count("\n") == 1
    assert "polycode: passed over: the adapter 'shouts' of shouts is broken" in done.stderr
    assert "HI\n" in done.stderr
    assert "HO\n" in done.stderr
    Path(tmp_path / "loud_x.py").write_text(source.replace("print('HI')", "raise SystemExit(0)"))
    done = forks.command(*given, "--metrics", "loud")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the code of 'loud_x' ended the run by itself (SystemExit: 0)" in done.stderr
