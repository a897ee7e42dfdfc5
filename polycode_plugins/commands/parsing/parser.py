"""A parser whose help names the plugins that are installed, and whose mistakes suggest a name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from polycode_plugins.errors import near


class Parser(argparse.ArgumentParser):
    """An argument parser.

    Attributes:
        examples: commands to begin with, shown at the end of the help.
        kinds: of plugins that the help lists: those that this command takes by name.
    """

    examples: Sequence[str] = ()
    kinds: Sequence[Any] = ()

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)
        self.examples = examples
        if self.description:
            self.description = _filled(self.description)

    def format_help(self) -> str:
        """The help, the plugins and the examples."""
        said = super().format_help()
        if self.kinds:
            from polycode_plugins import plugins

            said += "\ninstalled plugins:\n"
            for kind in self.kinds:
                names = ", ".join(p.reference for p in plugins.find(kind)) or "none"
                said += f"  {kind}: {names}\n"
        if self.examples:
            lines = "\n".join(f"  {example}" for example in self.examples)
            said += f"\n{'example' if len(self.examples) == 1 else 'examples'}:\n{lines}\n"
        return said

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            what = "command" if isinstance(action, argparse._SubParsersAction) else "choice"
            raise argparse.ArgumentError(
                None if what == "command" else action,
                f"there is no {what} {str(value)!r}{near(str(value), known)} "
                f"(there are: {', '.join(known)})",
            )

    def error(self, message: str) -> NoReturn:
        """One sentence, with the nearest option for one that does not exist; exit status 2."""
        text = message.removeprefix("unrecognized arguments: ")
        if text != message:
            wrong = text.split()[0]
            flags = [flag for parser in self._family() for flag in parser._option_string_actions]
            known = list(dict.fromkeys(flags))
            message = f"{self.prog} takes no {wrong!r}{near(wrong.partition('=')[0], known)}"
        self.exit(2, f"polycode: {message} ('{self.prog} --help' has all)\n")

    def _family(self) -> list[argparse.ArgumentParser]:
        found: list[argparse.ArgumentParser] = [self]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                found += action.choices.values()
        return found


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's commands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _filled(text: str) -> str:
    import textwrap

    return textwrap.fill(" ".join(text.split()), 88)
