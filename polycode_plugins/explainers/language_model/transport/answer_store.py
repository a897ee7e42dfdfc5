"""Every request and answer, under the hash of what was asked: nothing is paid for twice.

SQLite with a write-ahead log. An attempt is written before its request is sent, the answer when it
has come; so after a crash the file says which answers are there (they are used), and which requests
may have been paid for without an answer (their estimated price counts as spent). What can be sent
again are requests that were under way when the process died, and those whose answer did not say
what was asked for: that one was paid, and stays an attempt. It holds texts and answers, and no key.

Each is one statement, and so a transaction of its own: with many threads every further statement is
a wait for the interpreter, and that is what limits how many requests a second are answered.

The log is handed to the operating system at once and to the disk at its leisure: a killed process
loses nothing, a power failure may lose the last answers, and neither damages the file.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polycode_plugins.errors import StateError
from polycode_plugins.explainers.costs import Cost, Spent
from polycode_plugins.explainers.language_model.transport.request import Request
from polycode_plugins.files.guards import json_value
from polycode_plugins.files.locks import hold
from polycode_plugins.files.paths import given

FORMAT = 2
MOST_BYTES = 1 << 28  # of one answer, unpacked: a few bytes may unpack to all memory
_AT_ONCE = 500  # keys looked up in one statement; SQLite takes 999 in old versions
_SCHEMA = """
CREATE TABLE answers (
  key TEXT PRIMARY KEY, purpose TEXT, backend TEXT, model TEXT, request BLOB, answer BLOB,
  tokens_in INTEGER, tokens_out INTEGER, estimated INTEGER, dollars REAL,
  at TEXT DEFAULT CURRENT_TIMESTAMP
) WITHOUT ROWID;
CREATE TABLE attempts (
  id INTEGER PRIMARY KEY, key TEXT, purpose TEXT, dollars REAL, state TEXT, detail TEXT,
  at TEXT DEFAULT CURRENT_TIMESTAMP, tokens_in INTEGER DEFAULT 0, tokens_out INTEGER DEFAULT 0
);
CREATE INDEX attempts_of ON attempts (key);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
_FROM_1 = """
ALTER TABLE attempts ADD COLUMN tokens_in INTEGER DEFAULT 0;
ALTER TABLE attempts ADD COLUMN tokens_out INTEGER DEFAULT 0;
CREATE INDEX attempts_of ON attempts (key);
"""


def _inflated(packed: bytes) -> bytes:
    made = zlib.decompressobj()
    found = made.decompress(packed, MOST_BYTES)
    if not made.eof:
        raise ValueError("it is cut off" if len(found) < MOST_BYTES else "it unpacks to no end")
    return found


class Store:
    """The file; one process writes to it at a time, any number of threads.

    Raises:
        StateError: where the file cannot be opened, is no store, or another process writes to it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = given(path)
        self._lock = threading.Lock()
        shown = repr(str(path))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # It goes with this process, so one that was killed leaves nothing to clean up.
            self._held = hold(self.path.with_name(self.path.name + ".lock"), self.path, "file")
        except OSError as error:
            raise StateError(
                f"cannot write {shown}: {(error.strerror or str(error)).lower()}; give a file in a "
                "folder that can be written"
            ) from error
        try:
            self._open(shown)
        except BaseException:
            self._held.release()
            raise

    def _open(self, shown: str) -> None:
        self._db = sqlite3.connect(
            self.path, timeout=30, isolation_level=None, check_same_thread=False
        )
        try:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > FORMAT:
                raise StateError(
                    f"{shown} has format {version} and this version reads up to {FORMAT}; update "
                    "polycode-plugins"
                )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            if version < FORMAT:
                # One transaction: a process killed here leaves the file as it was.
                step = _FROM_1 if version == 1 else _SCHEMA
                self._db.executescript(
                    f"BEGIN IMMEDIATE; {step} PRAGMA user_version={FORMAT}; COMMIT;"
                )
            # Of what was under way when the last process ended, some was answered, some never.
            self._db.execute(
                "UPDATE attempts SET state='answered' WHERE state='sent' AND key IN "
                "(SELECT key FROM answers)"
            )
            self._db.execute("UPDATE attempts SET state='lost' WHERE state='sent'")
        except sqlite3.Error as error:
            self._db.close()
            raise StateError(
                f"{shown} is not a store of answers ({error}); give another file"
            ) from error
        except StateError:
            self._db.close()
            raise

    def answers(self, keys: Sequence[str]) -> dict[str, tuple[dict[str, Any], Cost]]:
        """The stored answers among these keys, and what each took when it was paid for."""
        found: dict[str, tuple[dict[str, Any], Cost]] = {}
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            with self._reading():
                rows = self._db.execute(
                    "SELECT key, answer, tokens_in, tokens_out, (SELECT COUNT(*) FROM attempts"
                    f" WHERE attempts.key=answers.key) FROM answers WHERE key IN ({marks})",
                    part,
                ).fetchall()
            for key, answer, sent, received, attempts in rows:
                try:
                    raw = dict(json_value(_inflated(answer).decode()))
                    cost = Cost(max(1, attempts), 1, int(sent), int(received))
                except (ValueError, TypeError, OverflowError, zlib.error) as error:
                    raise self._damaged(f"an answer in it cannot be read: {error}") from error
                found[key] = raw, cost
        return found

    def holds(self, key: str) -> bool:
        """Whether there is an answer."""
        with self._reading():
            found = self._db.execute("SELECT 1 FROM answers WHERE key=?", (key,)).fetchone()
        return found is not None

    def begin(self, key: str, purpose: str, dollars: float) -> int:
        """Write down that a request is about to be sent; returns the attempt's number."""
        with self._writing():
            cursor = self._db.execute(
                "INSERT INTO attempts (key, purpose, dollars, state) VALUES (?, ?, ?, 'sent')",
                (key, purpose, dollars),
            )
        return int(cursor.lastrowid or 0)

    def finish(
        self, key: str, backend: str, request: Request, raw: Mapping[str, Any], *,
        usage: tuple[int, int, bool], dollars: float,
    ) -> None:  # fmt: skip
        """Keep an answer, which ends the attempt of its key that is under way."""
        asked = zlib.compress(json.dumps(request.body, sort_keys=True).encode(), 1)
        answered = zlib.compress(json.dumps(raw).encode(), 1)
        row = (key, request.purpose, backend, request.model, asked, answered, *usage, dollars)
        with self._writing():
            self._db.execute(
                "INSERT OR IGNORE INTO answers (key, purpose, backend, model, request, answer,"
                " tokens_in, tokens_out, estimated, dollars) VALUES (?,?,?,?,?,?,?,?,?,?)",
                row,
            )

    def fail(self, attempt: int, detail: str, *, lost: bool = False) -> None:
        """Write down that an attempt ended without an answer; `lost` if it may have been paid."""
        state = "lost" if lost else "failed"
        with self._writing():
            self._db.execute(
                "UPDATE attempts SET state=?, detail=? WHERE id=?", (state, detail[:500], attempt)
            )

    def reject(
        self, attempt: int, reason: str, usage: tuple[int, int, bool], dollars: float
    ) -> None:
        """Write down an attempt whose answer did not say what was asked for, though it was paid."""
        with self._writing():
            self._db.execute(
                "UPDATE attempts SET state='rejected', detail=?, tokens_in=?, tokens_out=?,"
                " dollars=? WHERE id=?",
                (reason[:500], *usage[:2], dollars, attempt),
            )

    def withdraw(self, key: str, reason: str) -> None:
        """Turn an answer that does not say what was asked for into an attempt."""
        with self._writing():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.execute(
                    "INSERT INTO attempts (key, purpose, dollars, state, detail, tokens_in,"
                    " tokens_out) SELECT key, purpose, dollars, 'rejected', ?, tokens_in,"
                    " tokens_out FROM answers WHERE key=?",
                    (reason[:500], key),
                )
                # The attempt that brought the answer is the one that was just written anew.
                self._db.execute("DELETE FROM attempts WHERE key=? AND state='sent'", (key,))
                self._db.execute("DELETE FROM attempts WHERE key=? AND state='answered'", (key,))
                self._db.execute("DELETE FROM answers WHERE key=?", (key,))
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def spent(self) -> Spent:
        """What has been used so far, by this process and those before it."""
        with self._reading():
            answers, sent, received, dollars = self._db.execute(
                "SELECT COUNT(*), TOTAL(tokens_in), TOTAL(tokens_out), TOTAL(dollars) FROM answers"
            ).fetchone()
            states = dict(
                self._db.execute("SELECT state, COUNT(*) FROM attempts GROUP BY state").fetchall()
            )
            more = self._db.execute(
                "SELECT TOTAL(tokens_in), TOTAL(tokens_out), TOTAL(dollars) FROM attempts"
                " WHERE state IN ('lost', 'rejected')"
            ).fetchone()
        failed = states.get("failed", 0) + states.get("rejected", 0)
        sent, received, dollars = sent + more[0], received + more[1], dollars + more[2]
        return Spent(answers, failed, states.get("lost", 0), int(sent), int(received), dollars)

    def fact(self, name: str) -> Any:
        """A remembered JSON value; None where there is none."""
        with self._reading():
            row = self._db.execute("SELECT value FROM facts WHERE name=?", (name,)).fetchone()
        try:
            return None if row is None else json_value(row[0])
        except (ValueError, TypeError) as error:
            raise self._damaged(f"{name!r} in it cannot be read: {error}") from error

    def remember(self, name: str, value: Any) -> None:
        """Remember a JSON value."""
        with self._writing():
            self._db.execute(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value))
            )

    def _damaged(self, why: str) -> StateError:
        return StateError(
            f"{str(self.path)!r} is damaged ({why}); give another file, or a copy from before"
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise self._damaged(str(error)) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise StateError(
                    f"cannot write {str(self.path)!r}: {error}; what was answered before is saved, "
                    "so make room and repeat the same command"
                ) from error

    def __del__(self) -> None:
        if hasattr(self, "_db"):
            self.close()

    def close(self) -> None:
        """Close the file and let others write to it."""
        with self._lock:
            self._db.close()
            self._held.release()
