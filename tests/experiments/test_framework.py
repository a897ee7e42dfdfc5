"""Verdicts, files, resuming, the page and the command, on an experiment made for the purpose."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from polycode_plugins import experiments
from polycode_plugins.commands import main
from polycode_plugins.errors import PolycodeError, StateError
from polycode_plugins.experiments import claims, page
from polycode_plugins.experiments.base import Experiment, parts
from polycode_plugins.experiments.training import cosine, train

SEEN: list[str] = []


@dataclass(frozen=True)
class Settings:
    size: int = 20
    shift: float = 1.0


def run(settings, seed, folder):
    def make(key):
        SEEN.append(key)
        if key == "b" and (folder / "stop").exists():
            raise KeyboardInterrupt
        drawn = np.random.default_rng((seed, ord(key))).normal(settings.shift, 1, settings.size)
        return pd.DataFrame({"x": drawn})

    return {"draws": parts(folder, "draws", ["a", "b"], make)}


def figure(numbers):
    from polycode_plugins.experiments import drawing

    made, axes = drawing.panels(1, width=drawing.ONE)
    axes[0][0].plot(numbers["draws"]["x"])
    return made


def experiment(low: float = 0.0) -> Experiment:
    claim = claims.Claim(
        "The mean is <above> zero", "no paper", "mean", claims.at_least(low),
        lambda numbers: claims.mean_effect(numbers["draws"]["x"]),
    )  # fmt: skip
    return Experiment(
        "made-up", "A made-up figure", "nowhere", {s: Settings() for s in experiments.SCALES},
        run, figure, (claim,), ("A remark.",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (claims.Effect(1.0, 0.6, 1.4), "holds"),
        (claims.Effect(0.5, 0.2, 0.8), "cannot be judged at this scale"),
        (claims.Effect(0.1, -0.1, 0.3), "does not hold"),
        (claims.Effect(0.5), "holds"),
        (claims.Effect(0.49), "does not hold"),
        (claims.Effect(float("nan")), "cannot be judged at this scale"),
    ],
)
def test_the_interval_decides(effect, expected):
    assert claims.at_least(0.5).judge(effect) == expected


def test_intervals_cover_the_truth():
    generator = np.random.default_rng(0)
    means = [claims.mean_effect(generator.normal(3, 2, 8)) for _ in range(400)]
    shares = [claims.share_effect(int(generator.binomial(30, 0.9)), 30) for _ in range(400)]
    for effects, truth in ((means, 3.0), (shares, 0.9)):
        assert 0.92 < np.mean([e.low <= truth <= e.high for e in effects]) < 0.98
    skewed = claims.bootstrap_effect(lambda i: float(np.arange(50)[i].mean()), 50)
    assert skewed.low < 24.5 < skewed.high


def test_a_reproduction_is_written_and_read_again(tmp_path):
    SEEN.clear()
    made = experiments.reproduce(experiment(), out=tmp_path)
    assert {p.name for p in made.folder.iterdir()} == {
        "made-up.png", "made-up.pdf", "draws.csv", "verdicts.csv", "experiment.json",
    }  # fmt: skip
    again = experiments.reproduce(experiment(), out=tmp_path)
    assert SEEN == ["a", "b"]
    pd.testing.assert_frame_equal(made.numbers["draws"], again.numbers["draws"], check_exact=True)
    assert pd.read_csv(made.folder / "verdicts.csv")["verdict"].tolist() == ["holds"]
    with pytest.raises(StateError, match="another seed"):
        experiments.reproduce(experiment(), out=tmp_path, seed=1)
    other = experiments.reproduce(experiment(), out=tmp_path, seed=1, fresh=True)
    assert other.numbers["draws"]["x"][0] != made.numbers["draws"]["x"][0]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        experiments.reproduce(experiment(), out=tmp_path / folder, seed=3)
    for name in ("draws.csv", "verdicts.csv", "made-up.png", "made-up.pdf"):
        one, two = (tmp_path / f / "made-up" / name for f in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    whole = experiments.reproduce(experiment(), out=tmp_path / "whole").numbers["draws"]
    folder = tmp_path / "broken" / "made-up"
    (folder / "states").mkdir(parents=True)
    (folder / "states" / "stop").touch()
    with pytest.raises(StateError, match="holds other files"):
        experiments.reproduce(experiment(), out=tmp_path / "broken")
    (folder / "states" / "stop").unlink()
    (folder / "states").rmdir()

    def interrupted(settings, seed, states):
        (states / "stop").touch()
        return run(settings, seed, states)

    SEEN.clear()
    with pytest.raises(KeyboardInterrupt):
        experiments.reproduce(
            Experiment(**{**vars(experiment()), "run": interrupted}), out=tmp_path / "broken"
        )
    (folder / "states" / "stop").unlink()
    joined = experiments.reproduce(experiment(), out=tmp_path / "broken").numbers["draws"]
    assert SEEN == ["a", "b", "b"]
    pd.testing.assert_frame_equal(whole, joined, check_exact=True)
    assert not (folder / "states").exists()


def test_settings_can_be_changed_and_mistakes_are_named(tmp_path):
    made = experiments.reproduce(experiment(), out=tmp_path, changes={"shift": -3})
    assert made.verdicts[0].outcome == "does not hold"
    for changes, said in (({"sise": 3}, "did you mean 'size'"), ({"size": "x"}, "such as 20")):
        with pytest.raises(PolycodeError, match=said):
            experiments.reproduce(experiment(), out=tmp_path / "b", changes=changes)
    with pytest.raises(PolycodeError, match="smoke, laptop, paper"):
        experiments.reproduce(experiment(), out=tmp_path / "b", scale="labtop")
    with pytest.raises(PolycodeError, match="did you mean 'dropout-codes'"):
        experiments.reproduce("dropout-code", out=tmp_path / "b")


def test_the_pages_show_every_verdict_and_escape_text(tmp_path):
    made = [experiments.reproduce(experiment(low), out=tmp_path / str(low)) for low in (0.0, 9.0)]
    html = page.html(made, [("lost", "it & failed")])
    assert "Of 2 claims 1 hold, 1 do not hold." in html
    assert html.count("data:image/png;base64,") == 2
    assert "&lt;above&gt;" in html
    assert "lost was not made: it &amp; failed" in html
    assert "http" not in html.replace("http-equiv", "")
    assert "**does not hold**" in page.markdown(made, "pictures")


def test_the_command_lists_and_refuses(capsys, tmp_path):
    assert main.main(["reproduce", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == experiments.available()
    assert main.main(["reproduce"]) == 2
    assert main.main(["reproduce", "nothing-like-it", "--out", str(tmp_path)]) == 2
    assert "--list" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", experiments.PAPERS)
def test_every_experiment_is_complete(name):
    found = experiments.get(name)
    assert found.name == name
    assert set(found.settings) == set(experiments.SCALES)
    assert found.claims
    assert all(c.text and c.source and c.statistic for c in found.claims)


def test_interrupted_training_goes_on_bit_for_bit(tmp_path, monkeypatch):
    def fitted(path, stop_at=None, steps=30):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

        def loss_of(step):
            if step == stop_at:
                raise KeyboardInterrupt
            x = torch.randn(16, 3)
            return ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()

        losses = train(
            model, optimizer, loss_of, steps, seed=5, path=path, rate=cosine(1e-2, steps), every=5
        )
        return torch.cat([p.detach().flatten() for p in model.parameters()]), losses

    monkeypatch.setattr("polycode_plugins.experiments.training.SAVE_SECONDS", -1.0)
    state = torch.random.get_rng_state()
    whole, losses = fitted(None)
    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fitted(path, stop_at=17)
    resumed, more = fitted(path)
    assert torch.equal(whole, resumed)
    assert np.array_equal(losses, more)
    assert losses[-1, 1] < losses[0, 1]
    torch.random.set_rng_state(state)
    path.write_bytes(b"damaged")
    with pytest.raises(StateError, match="damaged"):
        fitted(path)


def test_the_page_keeps_what_earlier_runs_into_the_folder_made(tmp_path, capsys):
    out = ["--scale", "smoke", "--out", str(tmp_path)]
    assert main.main(["reproduce", "dropout-codes", *out]) == 0
    page = tmp_path / "index.html"
    assert page.read_text("utf-8").count("<section") == 2
    assert main.main(["reproduce", "superposition-ratio", *out]) == 0
    text = page.read_text("utf-8")
    assert text.index('id="superposition-ratio"') < text.index('id="dropout-codes"')
    other = experiments.finished("dropout-codes", scale="smoke", seed=1, out=tmp_path)
    assert other is None  # made with another seed: not on this page
    (tmp_path / "dropout-codes" / "experiment.json").write_text("{")
    assert main.main(["reproduce", "superposition-ratio", *out]) == 0
    assert page.read_text("utf-8").count("<section") == 2


def test_a_device_that_is_not_there_is_one_sentence(tmp_path, capsys):
    command = ["reproduce", "superposition-ratio", "--scale", "smoke", "--out", str(tmp_path)]
    assert main.main([*command, "--set", "device=nowhere"]) == 2
    assert "the device 'nowhere' cannot be used" in capsys.readouterr().err
