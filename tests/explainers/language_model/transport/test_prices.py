"""Prices."""

from __future__ import annotations

import json

import pytest
from chat_requests import PRICES


@pytest.mark.parametrize("name", ["prices.json", "prices.toml"])
def test_prices_from_a_file(explainer, tmp_path, name):
    text = json.dumps(PRICES) if name.endswith("json") else "[planted]\nin = 1000\nout = 2000\n"
    (tmp_path / name).write_text(text)
    one = explainer(prices=tmp_path / name)
    assert one.session.budget.prices.dollars("planted", 1_000_000, 500_000) == 2000
