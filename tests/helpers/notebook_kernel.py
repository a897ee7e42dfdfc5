"""A notebook's kernel, in a fork that has torch in place of a fresh interpreter."""

from __future__ import annotations

import functools
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import early
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.connect import write_connection_file

SECONDS = 300  # that a cell may take


@contextmanager
def kernel(folder: Path) -> Iterator[BlockingKernelClient]:
    """A client of a kernel that runs in a folder; the kernel has to end as it should."""
    file, _ = write_connection_file(str(folder / "connection.json"))
    running = early.Program(functools.partial(program, file, str(folder)))
    client = BlockingKernelClient()
    client.load_connection_file(file)
    client.start_channels()
    try:
        client.wait_for_ready(timeout=SECONDS)
        yield client
        client.shutdown()
    except BaseException:
        running.kill()
        raise
    finally:
        client.stop_channels()
        done = running.end()
    assert done.returncode == 0, done.stderr


def program(connection: str, folder: str) -> None:
    """`python -m ipykernel_launcher -f FILE`, as Jupyter starts it."""
    os.setsid()
    os.chdir(folder)
    sys.argv = ["ipykernel_launcher", "-f", connection]
    sys.path.insert(0, folder)
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
