"""Faults that can be planted in the code: a changed number, comparison, sign or condition, or a
statement left out. What tries them on the tests is `mutants.py`."""

from __future__ import annotations

import ast
import random
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "polycode_plugins"

#: Where faults are made, and where the tests lie that have to notice them.
AREAS = {
    "theory": "tests/theory",
    "information": "tests/information",
    "metrics": "tests/metrics",
    "metrics/action": "tests/metrics/action",
    "metrics/capacity": "tests/metrics/capacity",
    "metrics/cka": "tests/metrics/cka",
    "metrics/mine": "tests/metrics/mine",
    "metrics/spectrum": "tests/metrics/spectrum",
    "explainers/comparison": "tests/explainers/comparison",
}
#: Modules that only draw or word what others decide; methods `plot` are left alone too.
DRAWN = re.compile(r"(^|_)(plot|charts?|chapter|picture|report|table|heat_texts|answer)(_|$)")

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One fault: `number` counts the places of a file in the order of its syntax tree."""

    path: str
    number: int
    line: int
    what: str
    called: bool  # inside a function: the line runs when it is called, not on import
    first: int  # line where its statement begins

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


class _Places(ast.NodeTransformer):
    """Counts the places where a fault can be made, and makes that of one number."""

    def __init__(self, chosen: int | None = None) -> None:
        self.chosen, self.depth = chosen, 0
        self.places: list[tuple[int, str, bool, int]] = []
        self.first = 0

    def _here(self, node: ast.AST, what: str) -> bool:
        self.places.append((getattr(node, "lineno", 0), what, self.depth > 0, self.first))
        return len(self.places) - 1 == self.chosen

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.stmt):
            return self._statement(node)
        return super().visit(node)

    def _statement(self, node: ast.stmt) -> ast.AST:
        self.first = node.lineno
        if isinstance(node, ast.ImportFrom | ast.Import):
            return node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return node
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return node  # a docstring
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return node
        if isinstance(node, ast.Raise):
            # What an error says is not for these tests; that there is one is.
            return ast.copy_location(ast.Pass(), node) if self._left_out(node) else node
        dropped = isinstance(node, ast.AugAssign | ast.Expr) and self._left_out(node)
        if dropped:
            return ast.copy_location(ast.Pass(), node)
        if isinstance(node, ast.FunctionDef) and node.name == "plot":
            return node
        if isinstance(node, ast.ClassDef):
            node.body = [self.visit(child) for child in node.body]
            return node
        if isinstance(node, ast.FunctionDef):
            node.args.defaults = [self.visit(d) for d in node.args.defaults]
            node.args.kw_defaults = [d and self.visit(d) for d in node.args.kw_defaults]
            self.depth += 1
            node.body = [self.visit(child) for child in node.body]
            self.depth -= 1
            return node
        if isinstance(node, ast.AnnAssign):
            node.value = node.value and self.visit(node.value)
            return node
        if isinstance(node, ast.If) and self._here(node, f"if not {_short(node.test)}"):
            node.test = ast.UnaryOp(ast.Not(), node.test)
        return self.generic_visit(node)

    def _left_out(self, node: ast.stmt) -> bool:
        return self._here(node, f"left out: {_short(node)}")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value, other = node.value, None
        if isinstance(value, bool):
            other = not value
        elif isinstance(value, int):
            other = value + 1 if abs(value) < 10 else 2 * value
        elif isinstance(value, float):
            other = value * 4 if value else 1.0
        if other is None or not self._here(node, f"{value!r} -> {other!r}"):
            return node
        return ast.copy_location(ast.Constant(other), node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        for i, op in enumerate(node.ops):
            other = COMPARISONS[type(op)]
            if self._here(node, f"{_short(node)}: {type(op).__name__} -> {other.__name__}"):
                node.ops[i] = other()
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        texts = any(isinstance(n, ast.JoinedStr) or _is_text(n) for n in (node.left, node.right))
        other = OPERATORS.get(type(node.op))
        if other is not None and not texts:
            what = f"{_short(node)}: {type(node.op).__name__} -> {other.__name__}"
            if self._here(node, what):
                node.op = other()
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        if self._here(node, f"{_short(node)}: {type(node.op).__name__} -> {other.__name__}"):
            node.op = other()
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.USub | ast.Not) and self._here(node, f"{_short(node)}: bare"):
            return self.visit(node.operand)
        return self.generic_visit(node)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) < 60 else f"{text[:57]}..."


def faults(path: str) -> list[Mutant]:
    """Every fault that can be made in a file."""
    places = _Places()
    places.visit(ast.parse((ROOT / path).read_text("utf-8")))
    return [Mutant(path, i, *place) for i, place in enumerate(places.places)]


def mutated(source: str, mutant: Mutant) -> ast.AST:
    """The syntax tree with the fault in it."""
    tree = _Places(mutant.number).visit(ast.parse(source))
    return ast.fix_missing_locations(tree)


def area_of(path: str) -> str:
    """The area a file lies in: the longest that begins its path."""
    inside = path.removeprefix(f"{PACKAGE}/")
    return max((a for a in AREAS if inside.startswith(f"{a}/")), key=len, default="")


def drawn_sample(count: int, seed: int, only: list[str]) -> list[Mutant]:
    """`count` faults of all that can be made, each as likely as another; of them those of some
    areas, area by area."""
    files = sorted(
        {
            p.relative_to(ROOT).as_posix()
            for area in AREAS
            for p in (ROOT / PACKAGE / area).rglob("*.py")
            if p.name != "__init__.py" and not DRAWN.search(p.stem)
        }
    )
    every = [m for path in files for m in faults(path)]
    sample = random.Random(seed).sample(every, min(count, len(every)))
    wanted = [m for area in only for m in sample if area_of(m.path) == area] if only else sample
    print(f"{len(every)} faults in {len(files)} files; {len(wanted)} are tried", flush=True)
    return wanted
