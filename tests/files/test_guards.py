"""Settings, arguments and texts of others: a right answer or one clear sentence."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict, dataclass, field

import numpy as np
import pytest
from hostile_values import LETTERS, drawn
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import polycode_plugins as pc
from polycode_plugins.explainers import Comparison
from polycode_plugins.explainers.records.openai_records import read_neuron_records
from polycode_plugins.files import guards

# -- dataclasses from JSON ------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    ends: tuple[float, float] | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Outer:
    count: int
    values: NDArray[np.float64]
    whole: NDArray[np.int64] | None = None
    inner: Inner | None = None
    parts: tuple[Inner, ...] = ()
    named: dict[str, Inner] = field(default_factory=dict)


def test_a_dataclass_is_restored_by_its_annotations():
    inner = Inner((0.5, 1.5), ("a", "b"))
    made = Outer(2, np.array([1.0, np.nan]), np.array([3]), inner, (inner, Inner()), {"x": inner})
    fields = asdict(made) | {"values": [1.0, None], "whole": [3]}  # JSON has no NaN
    again = guards.restored(Outer, json.loads(json.dumps(fields)))
    assert again.values.dtype == np.float64
    assert again.whole.dtype == np.int64
    np.testing.assert_array_equal(again.values, made.values)
    assert (again.inner, again.parts, again.named) == (made.inner, made.parts, made.named)
    guards.check_fields(again)
    assert guards.restored(Outer, {"count": 1, "values": []}).inner is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"values": []}, "count"),
        ({"count": 1, "values": [], "other": 1}, "other"),
        ({"count": 1, "values": [], "inner": {"ends": [1, 2], "more": 3}}, "more"),
        ({"count": 1, "values": [], "inner": {"ends": [1.0, 2.0, 3.0]}}, "ends is .1.0, 2.0, 3.0."),
        ({"count": 1, "values": [], "inner": 3}, "inner is 3"),
        ({"count": 1, "values": [], "parts": [{"names": "ab"}]}, "names is 'ab'"),
        ({"count": "1", "values": []}, "count is '1'"),
    ],
)
def test_what_does_not_fit_is_named(fields, said):
    with pytest.raises((TypeError, pc.StateError), match=said):
        guards.check_fields(guards.restored(Outer, fields))


# -- texts ----------------------------------------------------------------------------------------


@drawn
@given(st.text(LETTERS.filter(lambda c: len(c) == 1)))
def test_what_is_shown_is_one_printable_line(text):
    assert guards.shown(text).isprintable()


def test_whole_numbers():
    assert [guards.whole_number(t) for t in ("0", "12", "9" * 18)] == [0, 12, 10**18 - 1]
    for text in ("", "-1", "1.0", "\u00b2", "\u0663", "9" * 10_000, "1 ", "1\n"):
        assert guards.whole_number(text) is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_of_a_full_disk_the_advice_is_room(error):
    assert "free some space" in guards.reason_of(error)
    assert "free" not in guards.reason_of(OSError(errno.EROFS, "Read-only file system"))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "3", '"format"', '{"format": Infinity}', '{"format": NaN}',
     '{"format": 1e9}', '{"format": true}', '{"format": -1}', "[" * 100_000, '{"a":' * 100_000,
     "\ud83d", "1" * 5_000],
)  # fmt: skip
@pytest.mark.usefixtures("elsewhere")
def test_what_is_no_record_at_all(text, tmp_path):
    for name, load in (
        ("run.json", lambda: pc.Analysis.load(tmp_path)),
        ("comparison.json", lambda: Comparison.load(tmp_path)),
        ("neuron.json", lambda: read_neuron_records(tmp_path / "neuron.json")),
    ):
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(pc.PolycodeError, match=name.partition(".")[0] + "|" + str(tmp_path)):
            load()
