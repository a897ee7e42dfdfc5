"""Whatever happens to a run, its answers are kept and none is paid for twice."""

from __future__ import annotations

import functools
import json
import sqlite3
import zlib

import early
import killed_runs
import pytest

from polycode_plugins.errors import StateError
from polycode_plugins.explainers.costs import Cost
from polycode_plugins.explainers.language_model import Store
from polycode_plugins.explainers.language_model.transport import answer_store
from polycode_plugins.explainers.language_model.transport.request import CHAT, Request

ASKED = Request(CHAT, {"model": "m", "messages": [], "max_tokens": 1}, "explain", "v1")


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_any_moment_it_goes_on_and_pays_for_nothing_twice(server, tmp_path, seed):
    path, rounds, count = tmp_path / "answers.sqlite", 9, 600
    server.delay = 0.005
    given = (server.url(), str(path), seed, rounds, count)
    done = early.Program(functools.partial(killed_runs.program, *given)).end()
    assert done.returncode == 0, done.stderr
    kept = [int(line) for line in done.stdout.split()]
    assert kept == sorted(kept)  # nothing is ever lost
    assert kept[-1] == count
    assert len({k for k in kept if 0 < k < count}) >= 5  # the kills came in the middle of the work
    store = Store(path)
    spent = store.spent()
    store.close()
    assert spent.answers == count
    # A request reached the server again only if it was under way when the process died.
    assert sum(server.seen.values()) - count <= spent.lost <= rounds * 8
    assert spent.dollars >= spent.answers * 1e-6
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_the_key_of_an_answer_is_all_that_decides_it():
    keys = {
        ASKED.key("http://a"),
        ASKED.key("http://b"),
        Request(CHAT, {**ASKED.body, "max_tokens": 2}, "explain", "v1").key("http://a"),
        Request("completions", ASKED.body, "explain", "v1").key("http://a"),
        Request(CHAT, ASKED.body, "explain", "v2").key("http://a"),
        Request(CHAT, ASKED.body, "explain", "v1", sample=1).key("http://a"),
    }
    assert len(keys) == 6
    again = Request(CHAT, dict(reversed(ASKED.body.items())), "simulate", "v1")
    assert again.key("http://a") in keys  # neither order nor purpose decides it


def test_an_answer_comes_back_as_it_was(tmp_path):
    raw = {"choices": [{"message": {"content": "ü\n"}}], "unknown": [1.5, None]}
    store = Store(tmp_path / "deep" / "s.sqlite")
    store.begin("k", "explain", 0.5)
    store.finish("k", "b", ASKED, raw, usage=(3, 4, False), dollars=0.25)
    assert store.answers(["k", "l"]) == {"k": (raw, Cost(1, 1, 3, 4))}
    lost = store.begin("l", "explain", 0.5)
    store.close()
    store = Store(tmp_path / "deep" / "s.sqlite")
    assert (store.holds("k"), store.holds("l")) == (True, False)
    assert store.answers(["k"]) == {"k": (raw, Cost(1, 1, 3, 4))}
    spent = store.spent()
    assert (spent.answers, spent.lost, spent.tokens_in, spent.tokens_out) == (1, 1, 3, 4)
    assert spent.dollars == 0.75
    assert lost == 2
    store.close()


def test_one_process_at_a_time(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    with pytest.raises(StateError, match="another process is writing"):
        Store(tmp_path / "s.sqlite")
    store.close()
    Store(tmp_path / "s.sqlite").close()


def test_files_that_are_no_store(tmp_path):
    (tmp_path / "text").write_text("this is a text, and not a data base of answers" * 50)
    with pytest.raises(StateError, match="is not a store of answers"):
        Store(tmp_path / "text")
    with pytest.raises(StateError, match="cannot write"):
        Store(tmp_path / "text" / "below.sqlite")
    db = sqlite3.connect(tmp_path / "new")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StateError, match="update polycode-plugins"):
        Store(tmp_path / "new")
    db = sqlite3.connect(tmp_path / "others")
    db.execute("CREATE TABLE answers (x)")
    db.close()
    with pytest.raises(StateError, match="is not a store of answers"):
        Store(tmp_path / "others")


def _packed(value: object) -> bytes:
    return zlib.compress(json.dumps(value).encode())


@pytest.mark.parametrize(
    "change",
    [
        ("answers SET answer=?", b"garbage"),
        ("answers SET answer=?", "a text"),
        ("answers SET answer=?", None),
        ("answers SET answer=?", _packed({"a": 1})[:-6]),
        ("answers SET answer=?", _packed([1, 2])),
        ("answers SET answer=?", zlib.compress(b"[" * 100_000)),
        ("answers SET answer=?", zlib.compress(b"\xff")),
        ("answers SET tokens_in=?", "many"),
        ("answers SET answer=?", zlib.compress(b" " * (1 << 20))),
        ("facts SET value=?", "[" * 100_000),
        ("facts SET value=?", b"\xff"),
    ],
)
def test_a_store_that_somebody_changed_is_one_sentence(tmp_path, change, monkeypatch):
    monkeypatch.setattr(answer_store, "MOST_BYTES", 1 << 19)
    store = Store(tmp_path / "s.sqlite")
    store.begin("k", "explain", 0.0)
    store.finish("k", "b", ASKED, {"text": "x"}, usage=(1, 1, False), dollars=0.0)
    store.remember("f", [1])
    assert store.answers(["k"])["k"][0] == {"text": "x"}
    store._db.execute(f"UPDATE {change[0]}", (change[1],))
    with pytest.raises(StateError, match=r"s\.sqlite' is damaged .*give another file"):
        store.fact("f") if change[0].startswith("facts") else store.answers(["k"])
    store.close()


def test_pages_that_were_overwritten(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    for name in range(200):
        store.begin(f"k{name}", "explain", 0.0)
        raw = {"text": f"{name}" * 300}
        store.finish(f"k{name}", "b", ASKED, raw, usage=(1, 1, False), dollars=0.0)
    store.close()
    content = bytearray((tmp_path / "s.sqlite").read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    (tmp_path / "s.sqlite").write_bytes(content)
    with pytest.raises(StateError, match=r"s\.sqlite'"):
        Store(tmp_path / "s.sqlite").answers([f"k{name}" for name in range(200)])


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + 4}")

    def keep(name: int) -> None:
        raw = {"text": str(list(range(name, name + 500)))}
        store.begin(f"k{name}", "explain", 0.0)
        store.finish(f"k{name}", "b", ASKED, raw, usage=(1, 1, False), dollars=0.0)

    def keep_all() -> None:
        for name in range(1000):
            keep(name)

    with pytest.raises(StateError, match=r"full; what was answered before is saved"):
        keep_all()
    kept = store.spent().answers
    assert 0 < kept < 1000
    assert all(store.holds(f"k{name}") for name in range(kept))
    store.close()
