"""Which sites patterns mean: globs, filters and names, among those of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from polycode_plugins.activations import Site
from polycode_plugins.errors import SiteError, near

#: Which sites: a name or glob or several, "all", a function of a name, or None for the default.
Sites = Sequence[str] | str | Callable[[str], bool] | None
ALL = "all"


def unknown(pattern: str, available: Sequence[Site]) -> str:
    """Why a pattern finds no site, with near names."""
    names = [s.name for s in available]
    hint = ""
    if any(c in pattern for c in "*?["):
        loose = re.compile(_glob(pattern.replace("**", "*").replace("*", "**")))
        wider = next((n for n in names if loose.fullmatch(n)), None)
        if wider is not None:
            hint = f"; '*' stays within one dotted part, '**' crosses them: {wider!r}"
    hint = (hint or near(pattern, names)).removesuffix("?")
    if names and not hint:
        hint = f"; there are {len(names)}, such as {names[len(names) // 2]!r}"
    return f"no site matches {pattern!r}{hint}"


def choose(
    patterns: Sequence[str] | str | Callable[[str], bool],
    available: Sequence[Site],
    default: Sequence[str],
    why: Callable[[str, Sequence[Site]], str] = unknown,
) -> list[Site]:
    """The sites that names and globs mean, in order of depth; `default` where all are "!globs".

    Args:
        patterns: names and globs, "all" among them, or a function that says of a name whether it
            is meant.
        why: the message for a pattern that finds nothing.

    Raises:
        SiteError: for a pattern that finds nothing; near names are suggested.
    """
    check_patterns(patterns)
    if callable(patterns):
        return _filtered(patterns, available)
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if all(site.name != ALL for site in available):
        patterns = ["**" if p == ALL else p for p in patterns]
    wanted = [p for p in patterns if not p.startswith("!")]
    unwanted = [p[1:] for p in patterns if p.startswith("!")]
    chosen: dict[str, Site] = {}
    for pattern in wanted or default:
        found = match(pattern, available)
        if not found:
            raise SiteError(why(pattern, available))
        for site in found:
            chosen.setdefault(site.name, site)
    for pattern in unwanted:
        found = match(pattern, list(chosen.values()))
        if not found:
            raise SiteError(f"'!{pattern}' leaves out none of the sites that were asked for")
        for site in found:
            del chosen[site.name]
    if not chosen:
        if not available:
            raise SiteError("this model has no sites; wrap a bare layer in torch.nn.Sequential")
        raise SiteError(
            "no sites were asked for, and this model has none by default; name some, for example "
            f"{available[-1].name!r}"
        )
    return sorted(chosen.values(), key=lambda site: site.depth)


def check_patterns(patterns: Sites) -> None:
    """Refuse what names no sites.

    Raises:
        SiteError: for anything but names, globs, "all", one function of a name, or None.
    """
    if patterns is None or callable(patterns) or isinstance(patterns, str):
        return
    given = list(patterns) if isinstance(patterns, Iterable) else [patterns]
    wrong = [p for p in given if not isinstance(p, str)]
    if wrong:
        raise SiteError(
            f"sites are names, globs, 'all' or one function of a name, and {wrong[0]!r} is none"
        )


def _filtered(wanted: Callable[[str], bool], available: Sequence[Site]) -> list[Site]:
    """The sites whose names a function accepts; of two names of one tensor the first."""
    found: dict[str, Site] = {}
    for site in available:
        if wanted(site.name):
            found.setdefault(site.source or site.name, site)
    if not found:
        names = ", ".join(repr(site.name) for site in available[:3])
        raise SiteError(
            f"the function given as sites= accepts none of the {len(available)} names, such as "
            f"{names}; list them with 'polycode sites' or load(model).sites()"
        )
    return sorted(found.values(), key=lambda site: site.depth)


def by_default(patterns: Sites) -> bool:
    """Whether nobody has named sites, so that those without a result may be left out."""
    if patterns is None or callable(patterns):
        return patterns is None
    names = [patterns] if isinstance(patterns, str) else patterns
    return all(name == ALL or name.startswith("!") for name in names)


def match(pattern: str, sites: Sequence[Site]) -> list[Site]:
    """The sites a name or glob means; a plain name matches itself alone."""
    exact = [s for s in sites if s.name == pattern]
    if exact or not any(c in pattern for c in "*?["):
        return exact
    expression = re.compile(_glob(pattern))
    found: dict[str, Site] = {}
    for site in sites:
        if expression.fullmatch(site.name):
            found.setdefault(site.source or site.name, site)
    return list(found.values())


def _glob(pattern: str) -> str:
    parts = re.split(r"(\*\*|\*|\?|\[[^]]*\])", pattern)
    table = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return "".join(
        table.get(
            p, p.replace("[!", "[^", 1) if p.startswith("[") and p.endswith("]") else re.escape(p)
        )
        for p in parts
    )
