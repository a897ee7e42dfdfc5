"""The explainer `openai`: a language model says what a unit responds to, and simulates it.

The model may be behind any server that speaks OpenAI's protocol, or run in this process;
explaining, simulating and judging may be done by three of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import Explanation, PaidExplainer, UnitRecords
from polycode_plugins.explainers.costs import Cost, Spent
from polycode_plugins.explainers.language_model import probe, prompts, trial
from polycode_plugins.explainers.language_model.answers import phrases
from polycode_plugins.explainers.language_model.answers.message import text_of
from polycode_plugins.explainers.language_model.backends import Backends
from polycode_plugins.explainers.language_model.capabilities import METHODS, Capabilities, Method
from polycode_plugins.explainers.language_model.judge import ChatJudge
from polycode_plugins.explainers.language_model.model import THOUGHT, Model, Settings
from polycode_plugins.explainers.language_model.roles import DEFAULT_MODEL, Role, roles
from polycode_plugins.explainers.language_model.simulators import BY_METHOD, RemoteSimulator
from polycode_plugins.explainers.language_model.transport.answer_store import Store
from polycode_plugins.explainers.language_model.transport.budget import Budget
from polycode_plugins.explainers.language_model.transport.failures import RemoteError
from polycode_plugins.explainers.language_model.transport.prices import read_prices
from polycode_plugins.explainers.language_model.transport.request import Request
from polycode_plugins.explainers.language_model.transport.server import Backend
from polycode_plugins.explainers.language_model.transport.session import Reply, Session


class OpenAIExplainer(PaidExplainer):
    """Explains and simulates by requests to a language model (Bills et al. 2023).

    Nothing is sent when it is made. When it is first needed, a model is probed and simulates a
    known text, and what is found is remembered in the store. Scores of different simulators are
    never pooled: a store in which one simulator was chosen for a model refuses another.

    Args:
        model: the name of the explaining model, as the server knows it; by default the backend's
            own, or gpt-4o-mini.
        simulator_model: the name of the simulating one.
        judge_model: the name of the one that says yes or no. Of simulator and judge the one of
            which nothing is said is the other; where nothing is said of both, the explaining one.
        base_url: of the server; by default $OPENAI_BASE_URL, or OpenAI's. "local:NAME" is a model
            in this process, of a folder or name of Hugging Face.
        simulator_url: where the simulating one is asked, if elsewhere.
        judge_url: where the judging one is asked, if elsewhere.
        key_variable: the environment variable that holds the key. There is no argument for the
            key itself, so that it is in no file and no report.
        simulator_key_variable: for another server; by default SIMULATOR_API_KEY, which may be
            unset.
        judge_key_variable: for another server; by default JUDGE_API_KEY, which may be unset.
        backend: in place of a server: an object such as `LocalModel`, or "local:NAME".
        store: file for all requests and answers. The same file again pays for nothing twice.
        simulator: "auto" takes the best that can be read on a known text; or "prompt-logprobs",
            "generated-logprobs", "token-by-token", "text".
        prices: table {model: {"in": x, "out": y}} in US dollars per million tokens, or its file.
        budget: US dollars that all answers in the store together may cost.
        concurrency: requests under way at once at most; fewer where a server does not keep up.
        timeout: seconds from sending a request to the end of its answer.
        attempts: how often a request is sent at most.
        explanation_tokens: the length of an explanation at most, thought apart.
        thought_tokens: room to think in, for every request; by default 4096 for a model that is
            found to think before it answers, and otherwise none.
        reasoning_effort: how much it is to think ("low"), for models that take it.
        body: further fields of every request's JSON, such as {"top_k": 1}; a null takes a field
            away.
        simulator_body: for the simulating one in place of `body`.
        judge_body: for the judging one in place of `body`.
        device: of models in this process; see `LocalModel`.
        dtype: of models in this process; see `LocalModel`.
        trust_remote_code: of models in this process; see `LocalModel`.
        plain_http: send keys over http to another machine.
        probe_again: probe and try even where the store remembers the backend.
        progress: show a bar on standard error.

    Raises:
        DataError, StateError, PluginError: for settings that cannot be used, a store
            that cannot be opened, and a missing `aiohttp` package.
    """

    name: ClassVar[str] = "openai"

    def __init__(
        self,
        model: str | None = None,
        *,
        simulator_model: str | None = None,
        judge_model: str | None = None,
        base_url: str | None = None,
        simulator_url: str | None = None,
        judge_url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        simulator_key_variable: str | None = None,
        judge_key_variable: str | None = None,
        backend: Backend | str | None = None,
        store: str | Path = "answers.sqlite",
        simulator: str = "auto",
        prices: str | Path | Mapping[str, Any] | None = None,
        budget: float | None = None,
        concurrency: int = 32,
        timeout: float = 300.0,
        attempts: int = 6,
        explanation_tokens: int = 120,
        thought_tokens: int | None = None,
        reasoning_effort: str | None = None,
        body: Mapping[str, Any] | None = None,
        simulator_body: Mapping[str, Any] | None = None,
        judge_body: Mapping[str, Any] | None = None,
        device: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
        plain_http: bool = False,
        probe_again: bool = False,
        progress: bool = False,
    ) -> None:
        if simulator not in ("auto", *METHODS):
            raise DataError(f"no simulator is called {simulator!r}; use auto, {', '.join(METHODS)}")
        if explanation_tokens < 1 or not timeout > 0:
            raise DataError("explanation_tokens and timeout must be above 0")
        self._wanted, self._limit, self._again = simulator, explanation_tokens, probe_again
        backends = Backends(
            backend,
            base_url,
            timeout=timeout,
            plain_http=plain_http,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
        named = roles(
            Role(model, backends.first, key_variable),
            Role(simulator_model, simulator_url, simulator_key_variable),
            Role(judge_model, judge_url, judge_key_variable),
        )
        bodies = {"explainer": body, "simulator": simulator_body, "judge": judge_body}
        made = {role: backends.make(named[role]) for role in named}
        names = {
            role: named[role].model or getattr(made[role], "name", None) or DEFAULT_MODEL
            for role in named
        }
        table = None if prices is None else read_prices(prices)
        if table is not None:
            for name in set(names.values()):
                table.dollars(name, 0, 0)  # a missing price is known now, not after a night
        settings = {
            role: Settings(reasoning_effort, thought_tokens, (body or {}) if own is None else own)
            for role, own in bodies.items()
        }
        answers = Store(store)
        try:
            shared = Budget(answers, table, budget)
            sessions = {
                id(b): Session(
                    b,
                    answers,
                    budget=shared,
                    concurrency=concurrency,
                    attempts=attempts,
                    progress=progress,
                )
                for b in made.values()
            }
        except DataError:
            answers.close()
            raise
        self.store, self._prices, self._sessions = answers, table, list(sessions.values())
        self._models = {
            role: Model(sessions[id(made[role])], names[role], settings[role]) for role in made
        }
        self.model, self.session = names["explainer"], self._models["explainer"].session
        self._known: dict[tuple[str, str, str], Capabilities] = {}

    def capabilities(self, role: str = "simulator") -> Capabilities:
        """What the backend gives for the model of a role; probed once."""
        model = self._models[role]
        name = _name(model)
        if name not in self._known:
            self._known[name] = probe.capabilities(model, again=self._again)
        return self._known[name]

    def _able(self, role: str) -> Model:
        """The model of a role, with what it gives."""
        return replace(self._models[role], capabilities=self.capabilities(role))

    def _assumed(self, role: str) -> Model:
        """The same by what is known without sending anything."""
        model = self._models[role]
        known = self._known.get(_name(model)) or probe.remembered(model)
        guess = _GUESS.get(self._wanted, Capabilities(chat=True))
        return replace(model, capabilities=known or guess)

    # -- explaining --------------------------------------------------------------------------------

    def explain_many(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation]:
        """One explanation per unit, at temperature 1; `seed` tells repeated draws apart.

        Raises:
            BudgetError: when the budget is spent; what was answered is kept.
            RemoteError: when no request can succeed.
        """
        model = self._able("explainer")
        requests = self._requests(model, units, seed)
        replies = iter(model.session.ask([r for r in requests if r is not None]))
        made = [
            self._silent(unit) if request is None else self._explanation(unit.unit, next(replies))
            for unit, request in zip(units, requests, strict=True)
        ]
        return self._distinct(made)

    def _requests(
        self, model: Model, units: Sequence[UnitRecords], seed: int
    ) -> list[Request | None]:
        """What asks for each unit's explanation; None for a unit that is silent."""
        shown = [_texts(unit) for unit in units]
        return [self._request(model, t, seed) if _active(t) else None for t in shown]

    def _request(self, model: Model, texts: Sequence[prompts.Text], seed: int) -> Request:
        if model.capabilities.chat:
            messages = prompts.explain_chat(texts)
            return model.chat(
                messages, self._limit, "explain", _phrase, temperature=1.0, sample=seed
            )
        return model.completion(
            prompts.explain_text(texts),
            "explain",
            _phrase,
            limit=self._limit,
            temperature=1.0,
            sample=seed,
            stop=["\n"],
        )

    def _silent(self, unit: UnitRecords) -> Explanation:
        return Explanation.failed(unit.unit, self.name, "the unit is silent in what is shown")

    def _explanation(self, unit: str, reply: Reply) -> Explanation:
        if reply.raw is None:
            return Explanation.failed(unit, self.name, reply.reason, reply.cost)
        return Explanation(unit, self.name, reply.value, cost=reply.cost)

    def _distinct(self, made: list[Explanation]) -> list[Explanation]:
        """Without phrases that are said of so many units that they are of none."""
        many = phrases.repeated([e.text if e.state == "ok" else None for e in made])
        return [
            Explanation.failed(e.unit, self.name, phrases.SAME, e.cost)
            if e.state == "ok" and phrases.plain(e.text) in many
            else e
            for e in made
        ]

    # -- simulating and judging --------------------------------------------------------------------

    def simulator(self) -> RemoteSimulator:
        """The best simulator that fits what the backend gives, and was read on a known text.

        Raises:
            RemoteError: where it cannot simulate, lacks what the simulator asked for needs, or the
                store holds another simulator's answers for this model.
        """
        model = self._able("simulator")
        caps = model.capabilities
        if self._wanted == "auto":
            _ = caps.method  # refuses a backend that has none
        fitting = caps.methods() if self._wanted == "auto" else [caps.fits(self._wanted)]
        fact = f"simulator of {model.name} at {model.session.backend.identity}"
        before, choice = self.store.fact(fact), self.store.fact(f"{self._wanted} {fact}")
        if choice in fitting and not self._again:
            simulator, warning = BY_METHOD[choice](model), None
        else:
            simulator, warning = trial.tried(model, fitting)
        if before not in (None, simulator.name):
            raise RemoteError(
                f"the store {str(self.store.path)!r} holds simulations of "
                f"{model.name!r} by {before!r}, and this run would use {simulator.name!r}, whose "
                f"scores do not compare: give another store, or simulator={before!r}"
            )
        if warning is not None:
            self.store.remember(fact, simulator.name)
            self.store.remember(f"{self._wanted} {fact}", simulator.name)
            self.store.remember(f"warning about the {fact}", warning)
        return simulator

    def judge(self) -> ChatJudge | None:
        """The judge; None where the model does not chat."""
        model = self._able("judge")
        return ChatJudge(model) if model.capabilities.chat else None

    def warnings(self) -> list[str]:
        """What a reader of the scores should know of the servers and the simulator."""
        model = self._models["simulator"]
        fact = f"warning about the simulator of {model.name} at {model.session.backend.identity}"
        said = [w for s in self._sessions for w in getattr(s.backend, "warnings", ())]
        return [*said, *filter(None, [self.store.fact(fact)])]

    # -- what it takes -----------------------------------------------------------------------------

    def estimate(self, units: Sequence[UnitRecords], *, seed: int = 0) -> Cost:
        """What `explain_many` would take at most, without sending anything."""
        requests = self._requests(self._assumed("explainer"), units, seed)
        return self.session.plan(r for r in requests if r is not None).cost

    def known(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation | None]:
        """The explanations that are in the store."""
        found: list[Explanation | None] = []
        requests = self._requests(self._assumed("explainer"), units, seed)
        for unit, request in zip(units, requests, strict=True):
            if request is None:
                found.append(self._silent(unit))
                continue
            reply = self.session.stored(request)
            found.append(None if reply is None else self._explanation(unit.unit, reply))
        kept = iter(self._distinct([e for e in found if e is not None]))
        return [None if e is None else next(kept) for e in found]

    def estimators(self) -> tuple[RemoteSimulator, ChatJudge | None]:
        """Simulator and judge to count requests with; nothing is sent, not even the probe.

        A backend that was not probed yet is taken for one with chat and no log-probabilities,
        unless `simulator` says otherwise, and for one that does not think before it answers,
        unless `thought_tokens` does.
        """
        model, judging = self._assumed("simulator"), self._assumed("judge")
        caps = model.capabilities
        fact = f"auto simulator of {model.name} at {model.session.backend.identity}"
        method: Method = caps.method if self._wanted == "auto" else caps.fits(self._wanted)
        if self._wanted == "auto" and (choice := self.store.fact(fact)) in caps.methods():
            method = choice
        judge = ChatJudge(judging) if judging.capabilities.chat else None
        return BY_METHOD[method](model), judge

    def unknown(self) -> str:
        """That a model was not asked yet, and so may need room to think in."""
        new = {
            model.name
            for model in self._models.values()
            if model.settings.thought_tokens is None and probe.remembered(model) is None
        }
        if not new:
            return ""
        return (
            f"{' and '.join(sorted(new))} was not asked yet: a model that thinks before it answers "
            f"may take {THOUGHT:,} tokens more for each request (--thought-tokens {THOUGHT} counts "
            "them)"
        )

    def dollars(self, cost: Cost) -> float | None:
        """The price of so many tokens, at most: by the dearest model where there are several.

        None without prices.
        """
        if self._prices is None:
            return None
        sent, received = cost.prompt_tokens, cost.completion_tokens
        models = {model.name for model in self._models.values()}
        return max(self._prices.dollars(model, sent, received) for model in models)

    def spent(self) -> Spent:
        """What all answers in the store have taken."""
        return self.store.spent()

    def describe(self) -> dict[str, Any]:
        """What decides the answers."""
        asked = {role: model.session.backend.identity for role, model in self._models.items()}
        used = self._models["explainer"].settings
        return {
            "explainer": self.name,
            "model": self.model,
            "simulator_model": self._models["simulator"].name,
            "judge_model": self._models["judge"].name,
            "backend": asked["explainer"],
            "backends": asked,
            "prompts": prompts.version(),
            "explanation_tokens": self._limit,
            "thought_tokens": used.thought_tokens,
            "reasoning_effort": used.effort,
            "bodies": {role: dict(model.settings.body) for role, model in self._models.items()},
            "simulator": self._wanted,
        }

    def close(self) -> None:
        """Close the store and the connections."""
        for session in self._sessions:
            session.close()


_GUESS = {
    "prompt-logprobs": Capabilities(True, False, True, "true", top=15),
    "generated-logprobs": Capabilities(True, False, False, "absent", "true", top=15),
    "token-by-token": Capabilities(False, False, True, "absent", "true", top=15),
}


def _name(model: Model) -> tuple[str, str, str]:
    return model.session.backend.identity, model.name, model.settings.name


def _phrase(raw: Mapping[str, Any]) -> str:
    return phrases.explanation(text_of(raw))


def _texts(unit: UnitRecords) -> list[prompts.Text]:
    return [(r.tokens, unit.levels(r).tolist()) for r in unit.explain.all()]


def _active(texts: Sequence[prompts.Text]) -> bool:
    return any(max(levels, default=0) > 0 for _, levels in texts)
