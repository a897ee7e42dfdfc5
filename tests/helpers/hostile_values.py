"""Values that break things, and the settings under which they are drawn: always the same ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SCRIPT = "</script><script>document.title='owned'</script>"
ODD = [
    None, True, False, 0, -1, 1, 10**30, -(2**63), 0.5, float("nan"), float("inf"), -float("inf"),
    "", "NaN", "../../escaped", "/etc/passwd", SCRIPT, "\u202egnirts", "\x00\x1b[31m", "half\ud83d",
    "\u2028", [], [[]], [None], [1, 2, 3], {}, {"a": {}}, {"__class__": "os.system"}, [[0, 0, 1]],
]  # fmt: skip
LETTERS = st.one_of(
    st.characters(),
    st.characters(categories=["Cs", "Cc", "Cf"]),
    st.sampled_from([SCRIPT, "\u202e", "\ufeff", "\ud83d", "<|endoftext|>", "\x00", "\r", "é"]),
)
drawn = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
fewer = settings(drawn, max_examples=15)


def places(tree: Any) -> list[tuple[Any, ...]]:
    """The path to every value in a tree of JSON."""
    if isinstance(tree, dict):
        steps = list(tree.items())
    else:
        steps = list(enumerate(tree[:4])) if isinstance(tree, list) else []
    return [path for key, value in steps for path in [(key,), *((key, *p) for p in places(value))]]


@st.composite
def broken(draw: Any, tree: Any) -> Any:
    """The tree with one to three values replaced, removed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(tree) or [("",)]))
        within = tree
        for step in way:
            within = within[step]
        deed = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        odd = copy.deepcopy(draw(st.sampled_from(ODD)))
        if deed == "replace" or not isinstance(within, dict):
            within[last] = odd
        elif deed == "remove":
            within.pop(last, None)
        else:
            within[draw(st.sampled_from(["", "odd", "../x", "\ud83d", "__init__"]))] = odd
    return tree


def answer(attempt: Callable[[], Any]) -> Any:
    """What it gives, or None where it is refused in one sentence."""
    import polycode_plugins as pc  # not before, since conftest.py reads this

    try:
        return attempt()
    except pc.PolycodeError as error:
        said = str(error)
    assert len(said) > 15
    assert "Traceback" not in said
    return None
