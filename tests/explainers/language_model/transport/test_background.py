"""The loop that runs beside."""

from __future__ import annotations

import asyncio
import gc
import time

from chat_requests import requests

from polycode_plugins.explainers.language_model.transport import background
from polycode_plugins.explainers.language_model.transport.answer_store import Store
from polycode_plugins.explainers.language_model.transport.session import Session


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
    async def cell():
        return explainer().session.ask(requests(3))

    assert all(r.raw for r in asyncio.run(cell()))


def test_a_forgotten_session_lets_its_threads_go_even_from_within_one_of_them(tmp_path):
    failed = []

    class Forgetful:
        identity, name = "within", "rules"

        def send(self, request, key):
            try:
                session._closing()  # as a collection in this thread does
            except RuntimeError as error:
                failed.append(error)
            return {}

    session = Session(Forgetful(), Store(tmp_path / "answers.sqlite"))
    session.ask(requests(1))
    session.close()
    assert failed == []


def test_what_a_collection_finishes_while_the_loop_is_made_goes_to_the_same_loop(monkeypatch):
    made = asyncio.new_event_loop

    async def nothing():
        return None

    def collected():
        monkeypatch.setattr(asyncio, "new_event_loop", made)
        background.finish(nothing())
        return made()

    monkeypatch.setattr(background, "_loops", {})
    monkeypatch.setattr(asyncio, "new_event_loop", collected)
    loop = background._loop()
    assert loop.is_running()
    assert background._loop() is loop
    loop.call_soon_threadsafe(loop.stop)
    while loop.is_running():
        time.sleep(0.001)
    loop.close()
