"""Who explains, who simulates and who judges: one model, or several at servers of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass

from polycode_plugins.explainers.language_model.transport.address import OPENAI, same_origin

DEFAULT_MODEL = "gpt-4o-mini"


@dataclass(frozen=True)
class Role:
    """Which model is asked, and where; None where that is not said.

    Attributes:
        model: its name.
        url: of its server, or local:NAME for one in this process.
        key_variable: the environment variable that holds the key.
    """

    model: str | None = None
    url: str | None = None
    key_variable: str | None = None

    @property
    def given(self) -> bool:
        """Whether anything is said."""
        return self != Role()

    def over(self, base: Role, variable: str) -> Role:
        """What is not said is taken from `base`; its key only where it is the same server's.

        Args:
            base: another role.
            variable: for the key of another server.
        """
        moved = self.url is not None and not _same(self.url, base.url)
        key = self.key_variable or (variable if moved else base.key_variable)
        # A model in this process has its own name.
        model = self.model or (None if moved and is_local(self.url) else base.model)
        return Role(model, self.url or base.url, key)


def roles(explainer: Role, simulator: Role, judge: Role) -> dict[str, Role]:
    """All three: what simulates judges too and the other way round, unless both are said."""
    if not simulator.given:
        simulator, judge = judge, judge
    elif not judge.given:
        judge = simulator
    return {
        "explainer": explainer,
        "simulator": simulator.over(explainer, "SIMULATOR_API_KEY"),
        "judge": judge.over(explainer, "JUDGE_API_KEY"),
    }


def is_local(url: str | None) -> bool:
    """Whether a role's URL names a model in this process."""
    return url is not None and url.startswith("local:")


def _same(a: str, b: str | None) -> bool:
    if is_local(a) or is_local(b):
        return a == b
    return same_origin(a, b or os.environ.get("OPENAI_BASE_URL") or OPENAI)
