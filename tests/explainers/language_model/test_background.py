"""The loop that runs beside."""

from __future__ import annotations

import gc
import time

import pytest
from chat_requests import requests

from polycode_plugins.explainers.language_model.transport import background


@pytest.mark.slow
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
