"""`polycode sites` and `polycode plugins`."""

from __future__ import annotations

import json

import early
from command_line import run

from polycode_plugins.plugins import trial


def test_sites_and_plugins(capsys, monkeypatch):
    monkeypatch.setattr(trial, "_served", early.served)
    assert run("sites", "--sites", "blocks.0.hook_resid_*", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [s["site"] for s in listed] == [
        f"blocks.0.hook_resid_{x}" for x in ("pre", "mid", "post")
    ]
    assert run("plugins", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    named = {(p["kind"], p["name"]): p for p in listed}
    assert named["adapter", "transformer-lens"]["distribution"] == "polycode-plugins"
    assert all(p["broken"] is None for p in listed if p["distribution"] == "polycode-plugins")
    assert run("plugins", "--no-import") == 0
    assert "spectrum" in capsys.readouterr().out
