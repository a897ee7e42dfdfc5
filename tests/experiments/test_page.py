"""The pages of experiments."""

from __future__ import annotations

from made_up_experiment import experiment

from polycode_plugins import experiments
from polycode_plugins.commands import main
from polycode_plugins.experiments import page


def test_the_pages_show_every_verdict_and_escape_text(tmp_path):
    made = [experiments.reproduce(experiment(low), out=tmp_path / str(low)) for low in (0.0, 9.0)]
    html = page.html(made, [("lost", "it & failed")])
    assert "Of 2 claims 1 holds, 1 does not hold." in html
    assert html.count("data:image/png;base64,") == 2
    assert "&lt;above&gt;" in html
    assert "lost was not made: it &amp; failed" in html
    assert "http" not in html.replace("http-equiv", "")
    assert "**does not hold**" in page.markdown(made, "pictures")


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
