"""Requests under way together, tried again or not, within a budget, and no key anywhere."""

from __future__ import annotations

import gc
import json
import logging
import re
import signal
import string
import threading
import time

import pytest
from hypothesis import given, strategies
from openai_server import KEY
from planted_units import UNITS

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import JudgeTask, SimulationTask
from polycode_plugins.explainers.comparison.dry_run import DryRun
from polycode_plugins.explainers.language_model import (
    BudgetError,
    OpenAIExplainer,
    OpenAIServer,
    RemoteError,
    Store,
)
from polycode_plugins.explainers.language_model.transport import background
from polycode_plugins.explainers.language_model.transport.refusals import retry_after
from polycode_plugins.explainers.language_model.transport.request import (
    CHAT,
    Request,
    estimated_tokens,
)
from polycode_plugins.explainers.language_model.transport.session import Session

PRICES = {"planted": {"in": 1000.0, "out": 2000.0}}


def requests(count: int) -> list[Request]:
    return [
        Request(
            CHAT,
            {
                "model": "planted",
                "messages": [{"role": "user", "content": f"x{i}"}],
                "max_tokens": 5,
            },
            "explain",
            "v",
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("fault", ["429", "500", "slow", "hangup"])
def test_what_passes_is_tried_again(explainer, server, fault):
    session = explainer(fault, timeout=1).session
    replies = session.ask(requests(3))
    assert all(r.raw is not None for r in replies)
    assert set(server.seen.values()) == {2 if fault in ("slow", "hangup") else 3}
    spent = session.store.spent()  # of what got no answer at all, some may have been paid for
    assert (spent.failures, spent.lost) == ((0, 3) if fault in ("slow", "hangup") else (6, 0))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", "refuses the key in \\$OPENAI_API_KEY"),
        ("404", "does not know the model"),
        ("quota", "no credit left .* repeat the same command"),
    ],
)
def test_what_makes_the_run_pointless_stops_it_at_once(explainer, server, fault, message):
    session = explainer(fault, concurrency=4).session
    with pytest.raises(RemoteError, match=message) as caught:
        session.ask(requests(50))
    assert KEY not in str(caught.value)
    assert max(server.seen.values()) == 1
    assert len(server.seen) < 50


@pytest.mark.parametrize("fault", ["400", "cut", "garbage"])
def test_what_will_not_pass_is_sent_once_and_fails_alone(explainer, server, fault):
    session = explainer(fault).session
    replies = session.ask(requests(3))
    assert [r.raw for r in replies] == [None] * 3
    assert set(server.seen.values()) == {1}
    spent = session.store.spent()
    assert spent.answers == 0
    assert (spent.failures, spent.lost) == ((3, 0) if fault == "400" else (0, 3))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("down", "the server answered 500 again and again: broken"),
        ("slow", "no answer within 1 s"),
        ("hangup", "the connection was dropped"),
        ("cut", "the answer was cut off"),
        ("garbage", "the answer was not JSON: proxy"),
    ],
)
def test_the_reason_is_named(explainer, fault, reason):
    [reply] = explainer(fault, timeout=1, attempts=1).session.ask(requests(1))
    assert (reply.raw, reply.reason) == (None, reason)


def test_no_server_is_an_error_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    store = Store(tmp_path / "s.sqlite")
    session = Session(OpenAIServer("http://127.0.0.1:9/v1"), store)
    with pytest.raises(RemoteError, match="cannot be reached"):
        session.ask(requests(2))
    store.close()


def test_everyone_waits_when_the_server_asks_to(explainer, server):
    session = explainer("429", concurrency=1).session
    start = time.monotonic()
    session.ask(requests(1))
    assert time.monotonic() - start >= 2 * 0.05  # Retry-After, twice


def test_retry_after_is_seconds_or_a_date():
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "1500"}) == 1.5
    assert retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}, "Please try again in 1m2.5s. Visit us.") == 62.5
    assert retry_after({}, "Please retry in 120ms") == 0.12
    assert retry_after({}, "try again later") is None
    assert retry_after({}) is None


def test_at_most_so_many_are_under_way(explainer, server):
    server.delay = 0.3
    explainer(concurrency=7).session.ask(requests(30))
    assert server.most_open == 7


def test_a_backend_that_blocks_has_a_thread_for_each_request(tmp_path):
    class Blocking:
        identity = "blocking"
        closed = False
        together = threading.Barrier(5, timeout=10)

        def send(self, request, key):
            self.together.wait()  # comes back only when five are asked at once
            return {"choices": [{"text": request.body["messages"][0]["content"]}]}

        def close(self):
            self.closed = True

    backend = Blocking()
    session = Session(backend, Store(tmp_path / "s.sqlite"), concurrency=5)
    replies = session.ask(requests(10))
    assert [r.raw["choices"][0]["text"] for r in replies] == [f"x{i}" for i in range(10)]
    session.close()
    assert backend.closed


@pytest.fixture
def interruptible():
    """Ctrl-C arrives, also where the shell has the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_what_is_under_way_when_it_is_interrupted_is_kept(explainer, server):
    server.delay = 0.05
    one = explainer(concurrency=8, again=True)
    main = threading.main_thread().ident

    def interrupt():
        while sum(server.seen.values()) < 20:
            time.sleep(0.005)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        one.session.ask(requests(400))
    spent = one.spent()
    assert 20 <= spent.answers < 400
    assert (spent.failures, spent.lost) == (0, 0)
    assert spent.answers == sum(server.seen.values())
    one.close()
    more = explainer(concurrency=100, again=True)
    assert all(r.raw for r in more.session.ask(requests(400)))
    assert max(server.seen.values()) == 1


def test_a_forgotten_session_closes_its_connections_even_from_within_the_loop(explainer):
    one = explainer()
    one.session.ask(requests(1))
    client = one.session.backend._client
    assert not client.closed
    one.session.store.close()

    async def forget():
        one.session = one._models = one._sessions = None
        gc.collect()

    background.run(forget(), interrupted=lambda: None)
    for _ in range(100):
        if client.closed:
            break
        time.sleep(0.01)
    assert client.closed
    one.close = lambda: None


def test_it_works_where_an_event_loop_runs_as_in_a_notebook(explainer):
    import asyncio

    async def cell():
        return explainer().session.ask(requests(3))

    assert all(r.raw for r in asyncio.run(cell()))


def test_the_same_is_sent_and_paid_once(explainer, server):
    one = explainer(prices=PRICES, again=True)
    three = requests(3)
    first = one.session.ask(three + three)
    assert [r.cost.requests for r in first] == [1, 1, 1, 0, 0, 0]
    assert [r.cost.stored for r in first] == [0, 0, 0, 1, 1, 1]
    spent = one.spent()
    assert spent.answers == 3
    assert spent.dollars == pytest.approx((spent.tokens_in * 1000 + spent.tokens_out * 2000) / 1e6)
    one.close()
    again = explainer(prices=PRICES, again=True)
    assert [r.raw for r in again.session.ask(three)] == [r.raw for r in first[:3]]
    assert max(server.seen.values()) == 1
    assert again.spent() == spent


def test_the_budget_holds_and_a_larger_one_goes_on(explainer, server):
    limited = explainer(prices=PRICES, budget=0.06, again=True)
    with pytest.raises(BudgetError, match=r"budget of \$0\.06 .* saved .* larger budget"):
        limited.session.ask(requests(40))
    spent = limited.spent()
    assert 0 < spent.answers < 40
    assert 0.03 < spent.dollars <= 0.06
    limited.close()
    more = explainer(prices=PRICES, budget=10, again=True)
    replies = more.session.ask(requests(40))
    assert all(r.raw for r in replies)
    assert sum(r.cost.stored for r in replies) == spent.answers
    assert max(server.answered.values()) == 1


def test_what_may_have_been_paid_counts_as_spent(explainer):
    session = explainer("cut", prices=PRICES, budget=0.05).session
    with pytest.raises(BudgetError):
        session.ask(requests(40))
    assert session.store.spent().dollars > 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 1}, "a budget needs prices"),
        ({"budget": -1, "prices": PRICES}, "dollars of at least 0"),
        ({"prices": {"plantd": PRICES["planted"]}}, "did you mean 'plantd'"),
        ({"prices": {"planted": {"in": "x", "out": 1}}}, "no prices 'in' and 'out'"),
        ({"prices": {"planted": {"in": -1, "out": 1}}}, "not a number of at least 0"),
        ({"prices": "/nowhere.json"}, "cannot be read"),
        ({"simulator": "promt"}, "no simulator is called"),
        ({"concurrency": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_used(explainer, options, message):
    with pytest.raises(DataError, match=message):
        explainer(**options)


@pytest.mark.parametrize("name", ["prices.json", "prices.toml"])
def test_prices_from_a_file(explainer, tmp_path, name):
    text = json.dumps(PRICES) if name.endswith("json") else "[planted]\nin = 1000\nout = 2000\n"
    (tmp_path / name).write_text(text)
    one = explainer(prices=tmp_path / name)
    assert one.session.budget.prices.dollars("planted", 1_000_000, 500_000) == 2000


def test_a_plan_sends_nothing_and_is_no_less_than_what_is_used(explainer, server):
    one = explainer("text", prices=PRICES, simulator="text")
    dry = DryRun(one)
    tasks = [
        SimulationTask(e, tuple(r.tokens for r in u.score.all()))
        for e, u in zip(dry.explain_many(UNITS), UNITS, strict=True)
    ]
    dry.simulator().simulate_many(tasks)
    assert not server.bodies
    count = len(UNITS) + sum(len(task.texts) for task in tasks)
    assert (dry.cost.requests, dry.cost.stored) == (count, 0)
    judged = [JudgeTask(t.explanation, "detection", t.texts) for t in tasks]
    assert one.estimators()[1].estimate(judged).requests == 2 * len(UNITS)
    explanations = one.explain_many(UNITS)
    one.simulator().simulate_many(
        [
            SimulationTask(e, tuple(r.tokens for r in u.score.all()))
            for e, u in zip(explanations, UNITS, strict=True)
        ]
    )
    spent = one.spent()
    assert spent.dollars <= one.dollars(dry.cost)
    assert spent.tokens_in <= dry.cost.prompt_tokens
    after = one.estimate(UNITS)
    assert (after.requests, after.stored) == (0, len(UNITS))


def test_the_estimate_of_tokens_is_of_the_right_size():
    text = "The unit fires 1234 times, at\tnumbers\t10\nand words like counterrevolutionary. " * 50
    # 18 words, numbers, marks and blanks a line, of which three are long enough to be split.
    assert 20 * 50 <= estimated_tokens(text) <= 26 * 50
    assert estimated_tokens("日本語") == 9  # a token for each byte is the worst that can be


@given(strategies.text(alphabet=string.printable + "é日\ud800\U0001f600", max_size=60))
def test_the_estimate_counts_what_it_says(text):
    pieces = re.compile(rb" ?[A-Za-z]{1,5}|[0-9]{1,3}|[ \t\n\r\x0b\x0c]+|.", re.DOTALL)
    assert estimated_tokens(text) == len(pieces.findall(text.encode(errors="surrogatepass")))


def test_the_key_is_nowhere(explainer, server, tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    one = explainer(prices=PRICES)
    one.explain_many(UNITS)
    one.simulator()
    with pytest.raises(RemoteError) as caught:
        explainer("401").explain(UNITS[0])
    shown = capsys.readouterr()
    said = [str(caught.value), repr(one.session.backend), json.dumps(one.describe()), caplog.text]
    said += [json.dumps(one.simulator().describe()), shown.out, shown.err]
    assert "[key removed]" in str(caught.value)
    assert not any(KEY in text for text in said)
    assert KEY in server.headers[-1]  # it was sent, so there was something to leak
    one.close()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "http://host/v1?key=secret", "host"])
def test_a_url_that_would_leak_or_is_none(url):
    with pytest.raises(DataError, match="base_url") as caught:
        OpenAIServer(url)
    assert "secret" not in str(caught.value)


def test_openai_without_a_key_is_not_asked_but_can_be_planned(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    one = OpenAIExplainer(store=tmp_path / "answers.sqlite")
    assert one.estimate(UNITS).requests == len(UNITS)
    with pytest.raises(RemoteError, match="set the environment variable OPENAI_API_KEY"):
        one.simulator()
    assert one.spent().answers == 0
    one.close()
