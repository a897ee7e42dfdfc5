"""Code of others, run here: it may raise, print or exit, and ends nothing but itself."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from polycode_plugins.errors import PluginError
from polycode_plugins.plugins.catalogue import DISTRIBUTION, Plugin

_REINSTALL = "reinstall or update it: pip install --upgrade"


@contextmanager
def contained(what: str = "it") -> Iterator[None]:
    """Foreign code inside ends no process, and what it prints goes to standard error.

    Args:
        what: whose code it is, for the message.

    Raises:
        PluginError: where it exits, interrupts, or raises what is no `Exception`. A person's
            Ctrl-C stays a KeyboardInterrupt; exceptions pass.
    """
    pressed = False

    def press(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    told_apart = before is signal.default_int_handler
    ignored = before is signal.SIG_IGN  # as in the background of a script: nobody can press it
    if told_apart:
        signal.signal(signal.SIGINT, press)
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Exception:
        raise
    except KeyboardInterrupt as error:
        if pressed or (main and not (told_apart or ignored)):
            raise
        raise PluginError(f"{what} raises KeyboardInterrupt, which is a person's to do") from error
    except SystemExit as error:
        raise PluginError(f"{what} ends the process ({cause(error)})") from error
    except BaseException as error:  # pytest's outcomes, and whatever else is no Exception
        raise PluginError(f"{what} raises {cause(error)}") from error
    finally:
        if told_apart and signal.getsignal(signal.SIGINT) is press:
            signal.signal(signal.SIGINT, before)


def cause(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def remedy(plugin: Plugin, error: BaseException | None = None) -> str:
    """What to do about a plugin that does not import."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.partition(".")[0]
        if missing != plugin.package:
            return f"it needs {missing!r}: install that, or what {plugin.distribution} asks for"
    if not plugin.distribution:  # stale metadata: it does not say whose it is
        return f"reinstall or remove the package that declares {plugin.target!r}"
    return f"{_REINSTALL} {plugin.distribution}"


def missing_extra(library: str, extra: str, what: str) -> PluginError:
    """The error for a built-in whose optional library is absent."""
    return PluginError(
        f"{what} needs {library}, which is not installed: pip install '{DISTRIBUTION}[{extra}]'"
    )
