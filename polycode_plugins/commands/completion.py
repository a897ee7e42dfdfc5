"""The command `polycode completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from polycode_plugins.commands.parsing.parser import subcommands

#: Options whose values are plugins.
_PLUGINS = {"--metrics": "metrics", "--adapter": "adapters", "--explainer": "explainers"}


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands in a shell",
        description="Print a script for a shell, with the options of all commands and the plugins "
        "that are installed now.",
        examples=[
            "polycode completion bash > ~/.local/share/bash-completion/completions/polycode",
            "polycode completion zsh > ~/.zfunc/_polycode",
            "polycode completion fish > ~/.config/fish/completions/polycode.fish",
        ],
    )
    parser.add_argument("shell", choices=sorted(_SCRIPTS), help="which one")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    print(_SCRIPTS[options.shell](_words(options.parser)), end="")
    return 0


def _words(parser: argparse.ArgumentParser) -> dict[str, dict[str, list[str]]]:
    """{command: {option: the values that it takes}}; no values where these are free."""
    from polycode_plugins import plugins

    found: dict[str, dict[str, list[str]]] = {}
    for command, own in subcommands(parser).items():
        found[command] = {}
        for action in own._actions:
            for flag in action.option_strings:
                values = list(map(str, action.choices or ()))
                if flag in _PLUGINS:
                    values = [p.reference for p in plugins.find(_PLUGINS[flag])]  # type: ignore[arg-type]
                found[command][flag] = values
    return found


def _bash(words: Mapping[str, Mapping[str, list[str]]]) -> str:
    cases, values = [], []
    for command, flags in words.items():
        cases.append(f"    {command}) words='{' '.join(flags)}' ;;")
        values += [
            f"    {command}:{flag}) words='{' '.join(known)}' ;;"
            for flag, known in flags.items()
            if known
        ]
    return f"""# bash completion of polycode
_polycode() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} before words=
  before=${{COMP_WORDS[COMP_CWORD-1]}}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '{" ".join(words)} --help --version' -- "$word"))
    return
  fi
  case "$command:$before" in
{chr(10).join(values)}
  esac
  if [ -z "$words" ] && [[ "$word" == -* ]]; then
  case "$command" in
{chr(10).join(cases)}
  esac
  fi
  if [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _polycode polycode
"""


def _zsh(words: Mapping[str, Mapping[str, list[str]]]) -> str:
    return f"#compdef polycode\nautoload -U +X bashcompinit && bashcompinit\n{_bash(words)}"


def _fish(words: Mapping[str, Mapping[str, list[str]]]) -> str:
    lines = ["# fish completion of polycode"]
    for command, flags in words.items():
        lines.append(f"complete -c polycode -n __fish_use_subcommand -f -a {command}")
        for flag, known in flags.items():
            kind = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
            values = f" -x -a '{' '.join(known)}'" if known else ""
            seen = f"'__fish_seen_subcommand_from {command}'"
            lines.append(f"complete -c polycode -n {seen} {kind}{values}")
    return "\n".join(lines) + "\n"


_SCRIPTS: dict[str, Callable[[Mapping[str, Mapping[str, list[str]]]], str]] = {
    "bash": _bash,
    "fish": _fish,
    "zsh": _zsh,
}
