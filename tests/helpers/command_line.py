"""The command line, called in this process."""

from __future__ import annotations

SMALL = ["--limit", "8", "--context", "32", "--quiet"]


def run(*arguments: object) -> int:
    from polycode_plugins.commands import main

    return main.main([str(a) for a in arguments])
