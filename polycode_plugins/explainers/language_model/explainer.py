"""The explainer `openai`: a language model says what a unit responds to, and simulates it.

The model may be behind any server that speaks OpenAI's protocol, or run in this process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import Explanation, PaidExplainer, UnitRecords
from polycode_plugins.explainers.costs import Cost, Spent
from polycode_plugins.explainers.language_model import prompts, readings
from polycode_plugins.explainers.language_model.answer_store import Store
from polycode_plugins.explainers.language_model.capabilities import (
    METHODS,
    Capabilities,
    capabilities,
    remembered,
)
from polycode_plugins.explainers.language_model.failures import RemoteError, Unreadable
from polycode_plugins.explainers.language_model.judge import ChatJudge
from polycode_plugins.explainers.language_model.prices import read_prices
from polycode_plugins.explainers.language_model.request import CHAT, COMPLETIONS, Request, text_of
from polycode_plugins.explainers.language_model.server import Backend, OpenAIServer
from polycode_plugins.explainers.language_model.session import Reply, Session
from polycode_plugins.explainers.language_model.simulators import BY_METHOD, RemoteSimulator


class OpenAIExplainer(PaidExplainer):
    """Explains and simulates by requests to a language model (Bills et al. 2023).

    Nothing is sent when it is made; a backend is probed once, when it is first needed, and what it
    gives is remembered in the store. Scores of different simulators are never pooled: a store in
    which one simulator was chosen for a model refuses another.

    Args:
        model: the name of the explaining model, as the server knows it; by default the backend's
            own, or gpt-4o-mini.
        simulator_model: the name of the simulating and judging one; by default the same.
        base_url: of the server; by default $OPENAI_BASE_URL, or OpenAI's.
        key_variable: the environment variable that holds the key. There is no argument for the
            key itself, so that it is in no file and no report.
        backend: in place of a server: an object such as `LocalModel`, or "local:NAME" for one of a
            folder or name of Hugging Face.
        store: file for all requests and answers. The same file again pays for nothing twice.
        simulator: "auto" takes what the probe finds to fit; or "prompt-logprobs",
            "generated-logprobs", "token-by-token", "text".
        prices: table {model: {"in": x, "out": y}} in US dollars per million tokens, or its file.
        budget: US dollars that all answers in the store together may cost.
        concurrency: requests under way at once.
        timeout: seconds to wait for an answer.
        attempts: how often a request is sent at most.
        explanation_tokens: the length of an explanation at most; a model that thinks before it
            answers needs many more than 60.
        probe_again: probe even where the store remembers the backend.
        progress: show a bar on standard error.

    Raises:
        DataError, StateError, PluginError: for settings that cannot be used, a store
            that cannot be opened, and a missing `openai` package.
    """

    name: ClassVar[str] = "openai"

    def __init__(
        self,
        model: str | None = None,
        *,
        simulator_model: str | None = None,
        base_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        backend: Backend | str | None = None,
        store: str | Path = "answers.sqlite",
        simulator: str = "auto",
        prices: str | Path | Mapping[str, Any] | None = None,
        budget: float | None = None,
        concurrency: int = 32,
        timeout: float = 120.0,
        attempts: int = 6,
        explanation_tokens: int = 60,
        probe_again: bool = False,
        progress: bool = False,
    ) -> None:
        if simulator not in ("auto", *METHODS):
            raise DataError(f"no simulator is called {simulator!r}; use auto, {', '.join(METHODS)}")
        if backend is not None and base_url is not None:
            raise DataError("give a backend or base_url, not both")
        if isinstance(backend, str):
            backend = _local(backend)
        model = model or getattr(backend, "name", None) or "gpt-4o-mini"
        table = None if prices is None else read_prices(prices)
        if table is not None:
            for name in {model, simulator_model or model}:
                table.dollars(name, 0, 0)  # a missing price is known now, not after a night
        self.model, self.simulator_model = model, simulator_model or model
        self._wanted, self._limit, self._again = simulator, explanation_tokens, probe_again
        if backend is None:
            backend = OpenAIServer(base_url, key_variable=key_variable, timeout=timeout)
        answers = Store(store)
        try:
            self.session = Session(
                backend,
                answers,
                prices=table,
                budget=budget,
                concurrency=concurrency,
                attempts=attempts,
                progress=progress,
            )
        except DataError:
            answers.close()
            raise
        self._known: dict[str, Capabilities] = {}

    def capabilities(self, model: str | None = None) -> Capabilities:
        """What the backend gives for the simulating model, or another; probed once."""
        model = model or self.simulator_model
        if model not in self._known:
            self._known[model] = capabilities(self.session, model, again=self._again)
        return self._known[model]

    # -- explaining --------------------------------------------------------------------------------

    def explain_many(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation]:
        """One explanation per unit, at temperature 1; `seed` tells repeated draws apart.

        Raises:
            BudgetError: when the budget is spent; what was answered is kept.
            RemoteError: when no request can succeed.
        """
        caps = self.capabilities(self.model)
        requests = self._requests(units, seed, caps)
        asked = [request for request in requests if request is not None]
        replies = iter(self.session.ask(asked))
        return [
            self._silent(unit) if request is None else self._explanation(unit.unit, next(replies))
            for unit, request in zip(units, requests, strict=True)
        ]

    def _requests(
        self, units: Sequence[UnitRecords], seed: int, caps: Capabilities
    ) -> list[Request | None]:
        """What asks for each unit's explanation; None for a unit that is silent."""
        shown = [_texts(unit) for unit in units]
        return [self._request(t, seed, caps) if _active(t) else None for t in shown]

    def _request(self, texts: Sequence[prompts.Text], seed: int, caps: Capabilities) -> Request:
        if caps.chat:
            messages = prompts.explain_chat(texts)
            body = caps.chat_body(self.model, messages, self._limit, temperature=1.0)
            body |= {"top_p": 1} if caps.temperature else {}
            return Request(CHAT, body, "explain", prompts.version(), seed)
        body = {"model": self.model, "prompt": prompts.explain_text(texts)}
        body |= {"max_tokens": self._limit, "temperature": 1, "top_p": 1, "stop": ["\n"]}
        return Request(COMPLETIONS, body, "explain", prompts.version(), seed)

    def _silent(self, unit: UnitRecords) -> Explanation:
        return Explanation.failed(unit.unit, self.name, "the unit is silent in what is shown")

    def _explanation(self, unit: str, reply: Reply) -> Explanation:
        reason = reply.reason
        if reply.raw is not None:
            try:
                text = readings.explanation(text_of(reply.raw))
                return Explanation(unit, self.name, text, cost=reply.cost)
            except Unreadable as error:
                reason = str(error)
        return Explanation.failed(unit, self.name, reason, reply.cost)

    # -- simulating and judging --------------------------------------------------------------------

    def simulator(self) -> RemoteSimulator:
        """The simulator that fits what the backend gives.

        Raises:
            RemoteError: where it cannot simulate, lacks what the simulator asked for needs, or the
                store holds another simulator's answers for this model.
        """
        caps = self.capabilities()
        method = caps.method if self._wanted == "auto" else caps.fits(self._wanted)
        name = f"simulator of {self.simulator_model} at {self.session.backend.identity}"
        before = self.session.store.fact(name)
        if before not in (None, method):
            raise RemoteError(
                f"the store {str(self.session.store.path)!r} holds simulations of "
                f"{self.simulator_model!r} by {before!r}, and this run would use {method!r}, whose "
                f"scores do not compare: give another store, or simulator={before!r}"
            )
        self.session.store.remember(name, method)
        return BY_METHOD[method](self.session, self.simulator_model, caps)

    def judge(self) -> ChatJudge | None:
        """The judge; None where the model does not chat."""
        caps = self.capabilities()
        return ChatJudge(self.session, self.simulator_model, caps) if caps.chat else None

    # -- what it takes -----------------------------------------------------------------------------

    def estimate(self, units: Sequence[UnitRecords], *, seed: int = 0) -> Cost:
        """What `explain_many` would take at most, without sending anything."""
        requests = self._requests(units, seed, self._assumed(self.model))
        return self.session.plan(r for r in requests if r is not None).cost

    def known(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation | None]:
        """The explanations that are in the store."""
        found: list[Explanation | None] = []
        requests = self._requests(units, seed, self._assumed(self.model))
        for unit, request in zip(units, requests, strict=True):
            if request is None:
                found.append(self._silent(unit))
                continue
            reply = self.session.stored(request)
            found.append(None if reply is None else self._explanation(unit.unit, reply))
        return found

    def estimators(self) -> tuple[RemoteSimulator, ChatJudge | None]:
        """Simulator and judge to count requests with; nothing is sent, not even the probe.

        A backend that was not probed yet is taken for one with chat and no log-probabilities,
        unless `simulator` says otherwise.
        """
        caps = self._assumed(self.simulator_model)
        method = caps.method if self._wanted == "auto" else caps.fits(self._wanted)
        simulator = BY_METHOD[method](self.session, self.simulator_model, caps)
        judge = ChatJudge(self.session, self.simulator_model, caps) if caps.chat else None
        return simulator, judge

    def dollars(self, cost: Cost) -> float | None:
        """The price of so many tokens, at most: by the dearer model where there are two.

        None without prices.
        """
        prices, models = self.session.prices, {self.model, self.simulator_model}
        if prices is None:
            return None
        sent, received = cost.prompt_tokens, cost.completion_tokens
        return max(prices.dollars(model, sent, received) for model in models)

    def _assumed(self, model: str) -> Capabilities:
        """What is known of the backend without sending anything."""
        known = self._known.get(model) or remembered(self.session, model)
        return known or _GUESS.get(self._wanted, Capabilities(chat=True))

    def spent(self) -> Spent:
        """What all answers in the store have taken."""
        return self.session.store.spent()

    def describe(self) -> dict[str, Any]:
        """What decides the answers."""
        return {
            "explainer": self.name,
            "model": self.model,
            "simulator_model": self.simulator_model,
            "backend": self.session.backend.identity,
            "prompts": prompts.version(),
            "explanation_tokens": self._limit,
            "simulator": self._wanted,
        }

    def close(self) -> None:
        """Close the store and the connections."""
        self.session.close()


def _local(name: str) -> Backend:
    kind, _, model = name.partition(":")
    if kind != "local" or not model:
        raise DataError(f"the backend {name!r} is not local:NAME, for example local:gpt2")
    from polycode_plugins.explainers.language_model.local import LocalModel

    return LocalModel(model)


_GUESS = {
    "prompt-logprobs": Capabilities(True, True, "true", top=15),
    "generated-logprobs": Capabilities(True, False, "absent", "true", top=15),
    "token-by-token": Capabilities(False, True, "absent", "true", top=15),
}


def _texts(unit: UnitRecords) -> list[prompts.Text]:
    return [(r.tokens, unit.levels(r).tolist()) for r in unit.explain.all()]


def _active(texts: Sequence[prompts.Text]) -> bool:
    return any(max(levels, default=0) > 0 for _, levels in texts)
