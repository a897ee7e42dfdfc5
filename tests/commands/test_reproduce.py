"""`polycode reproduce`."""

from __future__ import annotations

import json

from polycode_plugins import experiments
from polycode_plugins.commands import main


def test_the_command_lists_and_refuses(capsys, tmp_path):
    assert main.main(["reproduce", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == experiments.available()
    assert main.main(["reproduce"]) == 2
    assert main.main(["reproduce", "nothing-like-it", "--out", str(tmp_path)]) == 2
    assert "--list" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_one_sentence(tmp_path, capsys):
    command = ["reproduce", "superposition-ratio", "--scale", "smoke", "--out", str(tmp_path)]
    assert main.main([*command, "--set", "device=nowhere"]) == 2
    assert "the device 'nowhere' cannot be used" in capsys.readouterr().err
