"""Every installed plugin passes the conformance kit, one test for each plugin and check."""

from __future__ import annotations

import importlib.util
import warnings

import pytest

from polycode_plugins import plugins, testing
from polycode_plugins.commands.check import CHECKED, case_of, find_case
from polycode_plugins.errors import PolycodeError


def all_checks() -> list[object]:
    found = []
    for kind in CHECKED:
        for plugin in plugins.find(kind):
            if plugin.reference == "vllm" and importlib.util.find_spec("vllm") is None:
                continue  # tests/engine checks it, in an environment of its own
            for check in testing.checks(find_case(plugin.reference, kind.removesuffix("s"))):
                found.append(pytest.param(check, id=f"{plugin.reference}-{check}"))  # noqa: PERF401
    return found


@pytest.mark.parametrize("check", all_checks())
def test_conforms(check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the libraries behind the adapters announce
        check()


def test_every_builtin_has_a_case_of_its_own():
    declared = [p for kind in CHECKED for p in plugins.find(kind)]
    assert not {p.name for p in declared if plugins.load_case(p) is None}


def test_what_makes_no_case_is_said():
    with pytest.raises(PolycodeError, match="a small model is needed"):
        find_case("polycode_plugins.adapters.module:ModuleAdapter")
    with pytest.raises(PolycodeError, match="did you mean 'spectrum'"):
        find_case("spectrun")
    with pytest.raises(PolycodeError, match="does not import"):
        find_case("nowhere_at_all:Thing")
    with pytest.raises(PolycodeError, match=r"no adapter, metric or explainer is called 'zzz'"):
        find_case("zzz")
    with pytest.raises(PolycodeError, match="makes no case: ZeroDivisionError"):
        case_of(lambda: 1 / 0, "mine:case")
    with pytest.raises(PolycodeError, match=r"makes no case: TypeError: .* missing 1"):
        case_of(lambda given: given, "mine:case")
