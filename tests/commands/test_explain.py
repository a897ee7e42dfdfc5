"""`polycode explain`."""

from __future__ import annotations

import json

from polycode_plugins.commands.main import main

SITE = ["--sites", "blocks.2.mlp.hook_post", "--limit", "250", "--quiet"]


def test_explain_says_what_units_respond_to(capsys):
    arguments = ["explain", *SITE, "--numbers", "7,3", "--floors", "shuffled,oracle"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("blocks.2.mlp.hook_post  neuron") == 2
    assert "oracle" in printed
    assert "token-lookup " not in printed
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["unit"] for r in rows] == ["neuron 7", "neuron 3"]
