"""What a comparison by a paid explainer took: of this run, and of all runs that share its store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polycode_plugins.explainers.base import Explainer, PaidExplainer
from polycode_plugins.explainers.costs import FREE, Spent


def spent_by(explainer: Explainer) -> Spent | None:
    """What all the answers that an explainer keeps have taken; None for one that is free."""
    return explainer.spent() if isinstance(explainer, PaidExplainer) else None


def spending(explainer: Explainer, before: Spent | None) -> dict[str, Any] | None:
    """What was sent since `before`, and in all, as JSON values; None for an explainer that is free.

    Every attempt is a request. Dollars are None where no prices are known.
    """
    after = spent_by(explainer)
    if before is None or after is None or not isinstance(explainer, PaidExplainer):
        return None
    priced = explainer.dollars(FREE) is not None
    total = _counted(after, priced)
    run = {
        name: None if total[name] is None else total[name] - (value or 0)
        for name, value in _counted(before, priced).items()
    }
    return {"run": run, "store": total}


def _counted(spent: Spent, priced: bool) -> dict[str, Any]:
    return {
        "requests": spent.answers + spent.failures + spent.lost,
        "prompt_tokens": spent.tokens_in,
        "completion_tokens": spent.tokens_out,
        "dollars": spent.dollars if priced or spent.dollars else None,
    }


def spending_text(run: Mapping[str, Any]) -> str:
    """What the record of a run says of it in one sentence; "" where nothing was paid for."""
    spent = run.get("spent")
    if not spent:
        return ""
    return f"{_text(spent['run'])} in this run; {_text(spent['store'])} in its store of answers"


def _text(counted: Mapping[str, Any]) -> str:
    said = (
        f"{counted['requests']:,} requests, {counted['prompt_tokens']:,} tokens sent and "
        f"{counted['completion_tokens']:,} received"
    )
    return said if counted["dollars"] is None else f"{said}, ${counted['dollars']:,.4f}"
