"""Autoencoders in a comparison: at their own site, as many as asked for, doubted if they misfit."""

from __future__ import annotations

import pytest
import torch
from autoencoder_folders import sae_lens_folder, weights
from planted import NEURONS, Reader, Words, planted_texts

import polycode_plugins as pc
from polycode_plugins.commands.main import main
from polycode_plugins.errors import DataError
from polycode_plugins.explainers import directions, read_autoencoder
from polycode_plugins.explainers.comparison.outcome import Comparison


def true_dictionary(dead: int = 2) -> dict[str, torch.Tensor]:
    """A feature for each neuron, above the noise, and some that never fire."""
    eye = torch.eye(NEURONS)
    silent = torch.zeros(NEURONS, dead)
    return {
        "W_enc": torch.cat([eye, silent], dim=1),
        "b_enc": torch.tensor([0.0] * NEURONS + [-1.0] * dead),
        "threshold": torch.full((NEURONS + dead,), 1.0),
        "W_dec": torch.cat([eye, silent.T]),
        "b_dec": torch.zeros(NEURONS),
    }


@pytest.fixture
def folder(tmp_path):
    return sae_lens_folder(tmp_path / "sae", "jumprelu", true_dictionary(), hook="read")


def compared(units, **options):
    settings = {"n_units": NEURONS, "tokenizer": Words(), "judge": False}
    return pc.compare(Reader(), planted_texts(), units=units, **{**settings, **options})


def test_features_are_read_at_their_site_as_they_fire(folder, tmp_path):
    """The site comes from the folder; what is shown is behind the threshold; one side is read."""
    features = read_autoencoder(folder)
    made = compared(features, n_units=list(range(NEURONS + 2)), signs="both", out=tmp_path / "run")
    assert made.sites == ["read"]
    assert [u.name for u in made] == [f"feature {i}" for i in range(NEURONS + 2)]
    for unit in list(made)[:NEURONS]:
        assert unit.score("correlation") > 0.99
        values = [r.activations for r in unit.evaluation.records.score.all()]
        assert {round(float(v), 3) for row in values for v in row} <= {0.0, 5.0}
    for unit in list(made)[NEURONS:]:
        assert (unit.score("correlation"), unit.evaluation.explanation.state) == (None, "failed")
    assert "warnings" not in made.run
    group = made.directions["read", "feature", "trained"]
    assert group.origin["explained_variance"] > 0.95
    loaded = Comparison.load(tmp_path / "run").directions["read", "feature", "trained"]
    assert (loaded.names, loaded.origin) == (group.names, dict(group.origin))
    assert not loaded.directions[NEURONS:].any()
    with pytest.raises(DataError, match="read its folder again"):
        loaded.project(torch.zeros(1, NEURONS))


def test_as_many_features_and_directions_as_other_units(folder):
    more = directions(torch.eye(NEURONS).repeat(3, 1) + 0.1, kind="probe")
    made = compared(["neuron", read_autoencoder(folder), more], n_units=3)
    assert {k: sum(u.kind == k for u in made) for k in made.kinds} == dict.fromkeys(
        ("neuron", "feature", "probe"), 3
    )
    again = compared(["neuron", read_autoencoder(folder), more], n_units=3)
    assert [u.name for u in made] == [u.name for u in again]
    other = compared(["neuron", read_autoencoder(folder), more], n_units=3, seed=1)
    assert [u.name for u in made] != [u.name for u in other]
    said = made.run["warnings"]
    assert (
        "3 of the 10 feature units at hand were drawn at random; a larger n_units takes more"
        in said
    )
    assert any(s.startswith("3 of the 24 probe units") for s in said)
    few = compared(["projection", directions(torch.eye(NEURONS)[:2])], n_units=5)
    assert [u.kind for u in few] == ["projection"] * 5 + ["direction"] * 2
    with pytest.raises(DataError, match="numbers 0 to 9; 10 is not one"):
        compared(read_autoencoder(folder), n_units=[10])


def test_an_autoencoder_of_something_else_is_doubted(tmp_path):
    """Planted: a dictionary of other directions, and one trained on a scale of its own."""
    wrong = true_dictionary()
    wrong["W_dec"] = -wrong["W_dec"]
    folder = sae_lens_folder(tmp_path / "sae", "jumprelu", wrong, hook="read")
    (said,) = compared(read_autoencoder(folder)).run["warnings"][1:]
    assert said.startswith("the autoencoder 'sae' explains none of the variance at read")
    assert "model 'tiny-gpt2', site 'read'" in said
    scaled = {**true_dictionary(), "W_dec": true_dictionary()["W_dec"] / 4}
    folder = sae_lens_folder(tmp_path / "other", "jumprelu", scaled, hook="read")
    assert any(
        f"explains {n}%" in s
        for s in compared(read_autoencoder(folder)).run["warnings"]
        for n in range(30, 50)
    )


def test_two_autoencoders_of_one_site(folder):
    features = read_autoencoder(folder)
    with pytest.raises(DataError, match="two autoencoders read one site"):
        compared([features, read_autoencoder(folder)])
    second = read_autoencoder(folder, kind="again")
    assert compared([features, second], n_units=2).kinds == ["feature", "again"]


def test_sites_that_no_unit_reads_are_refused(tmp_path):
    hook = "blocks.2.hook_resid_pre"
    lens = sae_lens_folder(tmp_path / "lens", "topk", weights(0, 128, 40), hook=hook, k=4)
    with pytest.raises(DataError, match=r"no unit reads at 'blocks.1.hook_resid_pre'"):
        pc.compare(sites=["blocks.1.hook_resid_pre", hook], units=read_autoencoder(lens), limit=100)


def test_the_command_line(folder, tmp_path, capsys):
    hook = "blocks.2.hook_resid_pre"
    lens = sae_lens_folder(tmp_path / "lens", "topk", weights(0, 128, 40), hook=hook, k=4)
    usual = ["--limit", "200", "--no-judge", "--floors", "none", "--quiet"]
    assert main(["explain", "--sae", str(lens), "--numbers", "3,17", *usual]) == 0
    printed = capsys.readouterr()
    assert f"{hook}  feature 3\n" in printed.out
    assert f"{hook}  feature 17\n" in printed.out
    assert "of the variance at" in printed.err
    site = "blocks.0.hook_resid_post"
    assert main(["compare", "--sae", f"{lens}:{site}", "--n-units", "2", *usual]) == 0
    assert site in capsys.readouterr().out
    for arguments, message in (
        (["compare", "--sae", str(tmp_path / "none")], "there is no folder"),
        (["compare", "--sae", str(lens), "--sites", "blocks.1.hook_resid_post"], "not among the"),
        (["compare", "--sae-scale", "2"], "give it with --sae"),
        (["explain", "--units", "projection", "--numbers", "3"], "--numbers names neurons, or"),
    ):
        assert main([*arguments, *usual]) == 2
        assert message in capsys.readouterr().err
