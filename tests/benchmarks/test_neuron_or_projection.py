"""The picture and the table of what controls decide say what the comparison says."""

from __future__ import annotations

import dataclasses

from planted import planted_comparison

from benchmarks.neuron_or_projection import _cell, differences, draw, table


def test_table_and_picture_are_of_the_comparison(tmp_path):
    comparison = planted_comparison(units=("neuron", "covariance", "projection"))
    score = comparison.headline_scores[-1]
    covariance, projection = differences(comparison, score)
    assert [d.verdict for d in covariance] == [d.belongs for d in comparison.decisions(score)]
    assert {d.kind for d in projection} == {"projection"}
    contrast = comparison.contrast("neuron", "covariance", score)[-1]
    shuffled = comparison.contrast("neuron", "covariance", score, floor="shuffled")[-1]
    assert covariance[-1].floors["shuffled"] == shuffled.difference
    said = f"{contrast.difference:.3f}".replace("-", "\u2212")
    assert said in table(comparison)
    assert said in _cell(covariance[-1])
    untold = dataclasses.replace(covariance[-1], verdict="untold")
    assert _cell(untold) == "untold"  # and no number beside it
    draw(comparison, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
