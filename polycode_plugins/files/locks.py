"""Locks of files: one process at a time, and nothing to clean up after one that was killed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from polycode_plugins.errors import StateError


def hold(path: Path, what: Path, kind: str = "folder") -> BaseFileLock:
    """The lock at `path`, held until its `release()` or the end of this process.

    The file is opened without being emptied and never through a link, so that what somebody put
    there stays as it is.

    Args:
        path: of the lock.
        what: that is written under it, for the message.
        kind: what that is.

    Raises:
        StateError: where another process, or another part of this one, holds it, and where it is a
            link or cannot be made.
    """
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise StateError(
            f"another process is writing to {str(what)!r}; wait for it or give another {kind}"
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP or path.is_symlink():
            raise StateError(
                f"{str(path)!r} is a link, and a lock is never taken through one; remove the link"
            ) from error
        reason = (error.strerror or str(error)).lower()
        raise StateError(
            f"cannot write {str(what)!r}, whose lock cannot be had: {reason}; give a {kind} that "
            "can be written, on a disk that has locks"
        ) from error
    return lock


@contextmanager
def held(path: Path, what: Path) -> Iterator[None]:
    """Hold a lock as long as the block runs, and leave no file behind; see `hold`."""
    lock = hold(path, what)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.stat(follow_symlinks=False).st_size == 0:  # ours, not one that was there
                path.unlink()  # while it is held: who opened it before sees that it is gone
        lock.release()
