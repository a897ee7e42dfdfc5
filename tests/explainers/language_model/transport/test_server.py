"""What gateways do to an answer on its way: read, refused, or the end of the run."""

from __future__ import annotations

import gzip
import json
import re
import socketserver
import sqlite3
import threading
import time
import zlib

import pytest
from canned_server import CannedServer, chat, error
from openai_server import KEY

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.language_model import OpenAIServer, RemoteError, Store
from polycode_plugins.explainers.language_model.answers.message import text_of
from polycode_plugins.explainers.language_model.transport import server, session
from polycode_plugins.explainers.language_model.transport.refusals import retry_after
from polycode_plugins.explainers.language_model.transport.request import CHAT, Request
from polycode_plugins.explainers.language_model.transport.session import Session


def asked(name: str = "x") -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": name}], "max_tokens": 5}
    return Request(CHAT, body, "explain", "v", read=text_of)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """`ask(answer)`: the reply to one request, of a server that answers so."""
    monkeypatch.setattr(session, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def send(answer, *, attempts=2, timeout=30.0):
        reply = answer if callable(answer) else lambda *_: answer
        with CannedServer(reply) as running:
            store = Store(tmp_path / "answers.sqlite")
            one = Session(OpenAIServer(running.url, timeout=timeout), store, attempts=attempts)
            try:
                return one.ask([asked()])[0]
            finally:
                one.close()

    send.path = tmp_path / "answers.sqlite"
    return send


def kept(path) -> str:
    """All that a store holds, as one text."""
    db = sqlite3.connect(path)
    rows = [*db.execute("SELECT * FROM attempts"), *db.execute("SELECT * FROM answers")]
    db.close()
    texts = [
        zlib.decompress(v).decode() if isinstance(v, bytes) else str(v) for r in rows for v in r
    ]
    return "\n".join(texts)


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"\xef\xbb\xbf" + chat("names")),
        (200, {}, chat("names").decode().encode("utf-16")),
        (200, {"Content-Encoding": "gzip"}, gzip.compress(chat("names"))),
        (200, {"Content-Type": "text/html"}, b"\n \n" + chat("names")),
        (200, {}, chat("names", usage={"prompt_tokens": 10**30, "completion_tokens": 1})),
        (200, {}, chat("names", usage={"prompt_tokens": "many", "completion_tokens": None})),
        (200, {}, chat("names", usage={"prompt_tokens": -5, "completion_tokens": 1})),
        (200, {}, chat("names", usage={"prompt_tokens": float("nan"), "completion_tokens": 1})),
        (200, {}, chat("names", usage=[1, 2])),
    ],
)
def test_an_answer_is_read_whatever_is_around_it(ask, answer):
    assert ask(answer).value == "names"


def test_half_a_character_can_be_written_down(ask):
    data = chat("names X").replace(b"X", rb"\ud83d")
    assert ask((200, {}, data)).value == "names �"
    assert "names" in kept(ask.path)


def test_thought_that_is_counted_apart_is_paid_as_well(ask):
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 500}
    reply = ask((200, {}, chat("names", usage=usage)))
    assert (reply.cost.prompt_tokens, reply.cost.completion_tokens) == (100, 400)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, {}, b"<html><title>Sign in</title></html>"), "not JSON: Sign in"),
        ((200, {}, b"data: {}\n\ndata: [DONE]\n"), "streams its answers"),
        ((200, {}, b""), "was empty"),
        ((200, {}, b"[1, 2]"), "not JSON"),
        ((200, {}, b"[" * 100_000), "not JSON"),
        ((200, {}, b"{}"), "no choices"),
        ((200, {}, chat("nam", "length")), "cut at its limit"),
        ((200, {}, chat(None, "content_filter")), "filter"),
        ((200, {}, error("this prompt is too long")), r"refused .*: this prompt is too long"),
        ((400, {}, error("this prompt is too long")), r"\(400\): this prompt is too long"),
        ((422, {}, b'{"detail": [{"loc": ["x"], "msg": "field required"}]}'), "field required"),
        ((400, {}, b"<html><body><h1>Bad <b>request</b></h1></body></html>"), "Bad request"),
        ((500, {}, b"[{'error'"), "500 again and again"),
        (
            (200, {}, json.dumps({"choices": [{"error": {"message": "lost it", "code": 502}}]})
             .encode()),
            "502 again and again: lost it",
        ),
    ],
)  # fmt: skip
def test_a_failure_has_its_reason_and_is_no_answer(ask, answer, reason):
    reply = ask(answer)
    assert reply.raw is None
    assert re.search(reason, reply.reason), reply.reason
    store = Store(ask.path)
    assert store.spent().answers == 0
    store.close()


@pytest.mark.parametrize("bad", [chat(None, "content_filter"), error("overloaded", 502), b"<html>"])
def test_a_later_run_asks_again(tmp_path, monkeypatch, bad):
    monkeypatch.setattr(session, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    now = [bad]

    def run():
        one = Session(OpenAIServer(running.url), Store(tmp_path / "s.sqlite"), attempts=2)
        reply = one.ask([asked()])[0]
        one.close()
        return reply

    with CannedServer(lambda *_: (200, {}, now[0])) as running:
        assert run().raw is None
        now[0] = chat("names")
        reply = run()
        assert (reply.value, reply.cost.requests) == ("names", 1)
        sent = len(running.asked)
        again = run()
        assert (again.value, len(running.asked)) == ("names", sent)
        # What it took is known of the runs that paid for it.
        assert (again.cost.prompt_tokens, again.cost.completion_tokens) == (100, 20)
        assert (again.cost.requests, again.cost.stored) == (sent, 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((402, {}, error("Insufficient credits.", 402)), "no credit left .*Insufficient credits"),
        ((200, {}, error("Insufficient credits.", 402)), "no credit left"),
        ((400, {}, error("Your credit balance is too low to go on.")), "no credit left"),
        ((403, {}, error("Insufficient Balance")), "no credit left"),
        ((429, {}, error("You exceeded your current quota", "insufficient_quota")), "no credit"),
        ((401, {}, error("no auth")), "refuses the key in \\$OPENAI_API_KEY"),
        ((400, {}, error("xyz is not a valid model ID", 400)), "not a valid model ID"),
        ((404, {}, error("The model `m` does not exist")), "does not know the model"),
        ((404, {}, error("Use /v1/responses instead")), "Use /v1/responses instead"),
        ((429, {"Retry-After": "86400"}, error("daily limit")), r"asks to wait 86400 s \(daily"),
    ],
)
def test_what_makes_the_run_pointless_says_what_the_server_said(ask, answer, message):
    with pytest.raises(RemoteError, match=message):
        ask(answer)


def test_a_quota_that_is_a_matter_of_seconds_is_waited_for(ask):
    answers = iter(
        [
            (429, {}, error("You exceeded your current quota. Please retry in 20ms.", 429)),
            (200, {}, chat("names")),
        ]
    )
    assert ask(lambda *_: next(answers)).value == "names"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_texts_are_not_sent_on_to_where_a_redirect_leads(ask, status):
    with CannedServer(lambda *_: (200, {}, chat("names"))) as elsewhere:
        location = f"{elsewhere.url}/chat/completions?key={KEY}"
        with pytest.raises(
            RemoteError, match=r"sends its requests on to .* not followed"
        ) as caught:
            ask((status, {"Location": location}, b""))
        assert not elsewhere.asked
        assert KEY not in str(caught.value)


def test_the_time_out_bounds_the_whole_of_an_answer(ask, monkeypatch):
    def drip(path, body, headers):
        time.sleep(1.5)
        return 200, {}, chat("names")

    reply = ask(drip, attempts=1, timeout=0.3)
    assert reply.reason == "no answer within 0.3 s"


def test_an_answer_without_end_is_given_up(ask, monkeypatch):
    monkeypatch.setattr(server, "MOST_BYTES", 1000)
    reply = ask((200, {"Content-Encoding": "gzip"}, gzip.compress(chat("x" * 100_000))))
    assert "longer than any" in reply.reason


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        KEY[:14],
        f"{KEY[:6]}********{KEY[-4:]}",
        f"{KEY[:4]}...{KEY[-4:]}",
        "".join(f"%{b:02X}" for b in KEY.encode()),
        KEY.upper(),
    ],
)
@pytest.mark.parametrize("where", ["answer", "beside it", "refusal", "page"])
def test_a_key_that_is_echoed_is_not_kept(ask, form, where):
    beside = json.loads(chat("names")) | {"request": {"authorization": f"Bearer {form}"}}
    answer = {
        "answer": (200, {}, chat(f"the key is {form}")),
        "beside it": (200, {}, json.dumps(beside).encode()),
        "refusal": (400, {}, error(f"the key {form} has no rights here")),
        "page": (200, {}, f"<html>key {form}</html>".encode()),
    }[where]
    reply = ask(answer)
    held = f"{reply.raw} {reply.reason} {kept(ask.path)}".lower()
    assert KEY.lower() not in held
    assert form.lower() not in held
    assert "[key removed]" in held
    assert (reply.value == "names") == (where == "beside it")


def test_retry_after_is_seconds_or_a_date():
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "1500"}) == 1.5
    assert retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None
    assert retry_after({}, "Please try again in 1m2.5s. Visit us.") == 62.5
    assert retry_after({}, "Please retry in 120ms") == 0.12
    assert retry_after({}, "try again later") is None


@pytest.fixture
def locked_proxy():
    """A proxy that wants a password, as host:port."""

    class Locked(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 407 Password\r\nContent-Length: 0\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Locked) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_password_of_a_proxy_is_shown_nowhere(scheme, locked_proxy, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def said(proxy: str) -> str:
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        backend = OpenAIServer(f"{scheme}://example.invalid/v1", plain_http=True)
        one = Session(backend, Store(tmp_path / "answers.sqlite"), attempts=1)
        try:
            with pytest.raises(RemoteError) as caught:
                one.ask([asked()])
        finally:
            one.close()
        return str(caught.value)

    texts = [said(f"http://me:hunter2@{place}") for place in (locked_proxy, "127.0.0.1:9")]
    assert (
        f"the proxy http://{locked_proxy} on the way to {scheme}://example.invalid/v1" in texts[0]
    )
    assert "cannot be reached through the proxy http://127.0.0.1:9 (" in texts[1]
    with pytest.raises(DataError, match=r"is socks5://host:1, and only HTTP proxies") as caught:
        said("socks5://me:hunter2@host:1")
    assert "hunter2" not in "".join([*texts, str(caught.value), kept(tmp_path / "answers.sqlite")])
