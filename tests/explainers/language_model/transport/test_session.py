"""Requests under way together, tried again or not, within a budget, and no key anywhere."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from chat_requests import PRICES, requests
from openai_server import KEY

from polycode_plugins.explainers.language_model import (
    BudgetError,
    OpenAIServer,
    RemoteError,
    Store,
)
from polycode_plugins.explainers.language_model.transport.session import Session


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
