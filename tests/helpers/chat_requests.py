"""Requests that the planted server answers, and what they cost."""

from __future__ import annotations

from polycode_plugins.explainers.language_model.transport.request import CHAT, Request

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
