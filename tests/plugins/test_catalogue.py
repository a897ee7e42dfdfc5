"""Discovery: metadata only, broken plugins stay alone, name clashes are said."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polycode_plugins as pc
from polycode_plugins import plugins
from polycode_plugins.commands import main
from polycode_plugins.errors import PluginError
from polycode_plugins.metrics.names import make_metric


def test_built_ins_are_declared_like_everybody_else():
    assert {p.name for p in plugins.find("adapters")} >= {
        "module",
        "transformer-lens",
        "torchvision",
        "nnsight",
    }
    assert {p.distribution for p in plugins.find("metrics")} == {"polycode-plugins"}


def test_listing_imports_nothing(install, tmp_path):
    source = f"open({str(tmp_path / 'imported')!r}, 'w').close()\nclass Thing: ..."
    install("noisy", {"metrics/noisy": "noisy_module:Thing"}, {"noisy_module": source})
    found = plugins.get("metrics", "noisy")
    assert (found.distribution, found.version, found.target) == (
        "noisy",
        "1.2",
        "noisy_module:Thing",
    )
    assert not (tmp_path / "imported").exists()
    assert plugins.load("metrics", "noisy").__name__ == "Thing"
    assert (tmp_path / "imported").exists()


def test_what_is_installed_and_removed_meanwhile_is_seen(install, tmp_path):
    def known():
        return {p.name: p.version for p in plugins.find("metrics") if p.distribution == "later"}

    assert known() == {}
    install("later", {"metrics/one": "os:path"})
    assert known() == {"one": "1.2"}
    plugins.find("metrics").clear()
    assert known() == {"one": "1.2"}
    shutil.rmtree(tmp_path / "later-1.2.dist-info")
    assert known() == {}
    install("later", {"metrics/other": "os:path"})
    assert known() == {"other": "1.2"}


def test_listing_does_not_import_torch():
    script = (
        "import sys; from polycode_plugins import plugins; plugins.find('adapters'); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_broken_plugin_says_its_distribution_cause_and_remedy(install):
    install(
        "half-done",
        {"metrics/needs": "half_done:Metric"},
        {"half_done": "import surely_not_installed\n"},
    )
    with pytest.raises(
        PluginError,
        match=r"'needs' of half-done does not import: ModuleNotFoundError.*install.*surely_not",
    ):
        plugins.load("metrics", "needs")


def test_a_built_in_keeps_its_name(install):
    install("usurper", {"metrics/spectrum": "usurper:M"}, {"usurper": "class M: ..."})
    assert plugins.get("metrics", "spectrum").distribution == "polycode-plugins"
    shadowed = plugins.get("metrics", "usurper:spectrum")
    assert (shadowed.standing, shadowed.reference) == ("shadowed", "usurper:spectrum")
    assert plugins.load("metrics", "usurper:spectrum").__module__ == "usurper"


def test_two_third_parties_clash_and_the_distribution_decides(install):
    install("one", {"metrics/same": "one_module:M"}, {"one_module": "class M: ..."})
    install("two", {"metrics/same": "two_module:M"}, {"two_module": "class M: ..."})
    with pytest.raises(PluginError, match="'one:same' or 'two:same'"):
        plugins.get("metrics", "same")
    assert plugins.load("metrics", "two:same").__module__ == "two_module"


def test_an_unknown_name_suggests_near_ones():
    with pytest.raises(PluginError, match=r"no metric is called 'spectrun'.*'spectrum'"):
        plugins.get("metrics", "spectrun")
    with pytest.raises(PluginError, match=r"installed: .*module"):
        plugins.get("adapters", "zzz")


def test_metadata_without_a_name_or_with_odd_text_is_listed_not_fatal(tmp_path, monkeypatch):
    info = tmp_path / "odd-0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[polycode_plugins.metrics]\nodd = <script>:x y\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    odd = plugins.get("metrics", "odd")
    assert odd.target == "<script>:x y"
    with pytest.raises(PluginError, match="does not import"):
        plugins.load("metrics", "odd")


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"[polycode_plugins.metrics]\nno target\n",
        b"no section = x:y\n[a\n",
        b"<<<<<<< HEAD\n[polycode_plugins.metrics]\na = b:C\n=======\n>>>>>>> other\n",
    ],
)
def test_unreadable_metadata_takes_nothing_down_and_is_said(text, tmp_path, monkeypatch, capsys):
    info = tmp_path / "damaged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: damaged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_bytes(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert plugins.get("metrics", "spectrum").distribution == "polycode-plugins"
        assert plugins.load("metrics", "spectrum").__name__ == "Spectrum"
        assert plugins.load_case(plugins.get("metrics", "spectrum")) is not None
    assert bool(plugins.unreadable()) == any(
        "damaged-1.0.dist-info was passed over" in str(one.message) for one in said
    )
    assert set(plugins.unreadable()) <= {"damaged-1.0.dist-info"}
    assert main.main(["plugins", "--no-import"]) == 0
    printed, said = capsys.readouterr()
    assert "spectrum" in printed
    assert bool(plugins.unreadable()) == ("not listed: damaged-1.0.dist-info" in said)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    name=st.text(min_size=1, max_size=12),
    target=st.one_of(
        st.text(max_size=20), st.sampled_from(["os:", ":", "a:b:c", "os:path", "..x:y", "os [x]"])
    ),
)
def test_odd_names_and_targets_are_listed_or_refused(name, target):
    point = EntryPoint(name, target, "polycode_plugins.metrics")
    (found,) = plugins.arrange("metrics", [point])
    assert (found.name, found.target, found.distribution) == (name, target, "")
    why = plugins.why_broken(found)
    assert why is None or "\n" not in why


def test_names_that_a_terminal_would_obey_are_shown_escaped(install, capsys):
    install("loud", {"metrics/\x1b[31mred": "loud_module:M", "metrics/back\u202e": "x:y"})
    assert main.main(["plugins", "--no-import"]) == 0
    printed = capsys.readouterr().out
    assert "\\x1b[31mred" in printed
    assert not {"\x1b", "\u202e"} & set(printed)


def test_what_is_no_metric_is_not_called(install):
    source = "def M(*_, **__): raise SystemExit(3)\n"
    install("function", {"metrics/function": "a_function:M"}, {"a_function": source})
    with pytest.raises(PluginError, match="'function' is a function and no class of metrics"):
        make_metric("function")


METRIC = """
from polycode_plugins.metrics import Spectrum
class Other(Spectrum):
    name = {name!r}
"""


def test_a_class_has_the_name_of_its_entry_point(install, forked_trials):
    source = METRIC.format(name="other")
    install("renamed", {"metrics/rarity": "renamed_module:Other"}, {"renamed_module": source})
    with pytest.raises(PluginError, match=r"'rarity' of renamed.*'other'.*have to be equal"):
        plugins.load("metrics", "rarity")
    found = plugins.get("metrics", "rarity")
    assert "have to be equal" in plugins.broken([found])["metrics", "renamed", "rarity"]


def test_a_saved_analysis_finds_the_metric_it_was_made_with(install, tmp_path):
    source = METRIC.format(name="spectrum")
    install("usurper", {"metrics/spectrum": "usurping:Other"}, {"usurping": source})
    kinds = {ref: plugins.load("metrics", ref) for ref in ("spectrum", "usurper:spectrum")}
    for reference, kind in kinds.items():
        data = torch.randn(90, 8, generator=torch.Generator().manual_seed(0))
        made = pc.measure({"a": data}, [kind(fit="huber", ranks=(1, 8))])
        assert made.run["metrics"][0]["metric"] == reference
        made.save(tmp_path / "run")
        (metric,) = pc.Analysis.load(tmp_path / "run").statistics.metrics
        assert type(metric) is kind


def test_metadata_that_an_earlier_version_left_behind_is_no_clash(tmp_path, monkeypatch):
    """Of two versions the one that is imported, by the order of the path, counts."""
    for version in ("1.0", "2.0"):
        info = tmp_path / version / f"stale-{version}.dist-info"
        info.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: stale\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
        target = f"gone_{version[0]}:M"
        (info / "entry_points.txt").write_text(f"[polycode_plugins.metrics]\nstale = {target}\n")
        monkeypatch.syspath_prepend(str(tmp_path / version))
    found = plugins.get("metrics", "stale")
    assert (found.version, found.standing) == ("2.0", "active")
    with pytest.raises(PluginError, match=r"ModuleNotFoundError.*reinstall or update it.*stale"):
        plugins.load("metrics", "stale")
