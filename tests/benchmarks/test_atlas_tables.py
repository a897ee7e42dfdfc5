"""Tables, sentences and the page of the atlas, from runs of a small network that are saved."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import polycode_plugins as pc
from benchmarks.atlas import claims, controls, earlier, figures, findings, measurements, page
from benchmarks.atlas.networks import NETWORKS, NEURONS, RESIDUAL, Network, Stream
from polycode_plugins.errors import StateError
from polycode_plugins.experiments.claims import judge

BLOCKS, WIDTH = 5, 24


def small() -> Network:
    """Five linear maps, whose outputs are a residual stream, and what they are given."""

    def load(_folder):
        torch.manual_seed(0)
        maps = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(BLOCKS)]
        return pc.load(torch.nn.Sequential(*maps), "module")

    return Network(
        "small",
        "A small network",
        "of no use",
        BLOCKS,
        (Stream(RESIDUAL, "{}"), Stream(NEURONS, "{}:in")),
        load,
        lambda _cache: torch.randn(80, 6, WIDTH, generator=torch.Generator().manual_seed(1)),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("atlas")
    measurements.measure_all(small(), out, out, 80)
    return out


@pytest.fixture(scope="module")
def tables(runs):
    return measurements.tables([small()], runs)


def test_rows_are_the_saved_results(runs, tables):
    sites = tables["sites"]
    assert sites.groupby("kind").size().to_dict() == {RESIDUAL: BLOCKS, NEURONS: BLOCKS}
    saved = pc.Analysis.load(runs / "small" / "main")
    for row in sites[sites["kind"] == RESIDUAL].to_dict("records"):
        spectrum = saved[row["site"], "spectrum"]
        assert row["depth"] == row["block"] / (BLOCKS - 1)
        assert row["exponent"] == spectrum.exponent
        assert (row["exponent_low"], row["exponent_high"]) == spectrum.interval
        assert row["participation"] == spectrum.participation_ratio
        capacity = saved[row["site"], "capacity"]
        assert row["redundancy"] == pytest.approx(capacity.redundancy_fraction)
        assert row["redundancy_low"] * capacity.flat_entropy == pytest.approx(capacity.interval[0])
        action = saved[row["site"], "action"]
        assert row["smoothness"] == action.von_neumann_ratio
        assert row["smoothness_low"] < row["smoothness"] < row["smoothness_high"]
        assert 0 < row["nats"] <= row["ceiling"]
    first = sites[(sites["kind"] == RESIDUAL) & (sites["block"] == 0)].iloc[0]
    assert math.isnan(first["cka_previous"])
    assert sites[sites["kind"] == NEURONS]["nats"].isna().all()


def test_pairs_are_symmetric_with_ones_between_a_site_and_itself(tables):
    pairs = tables["pairs"]
    for kind in (RESIDUAL, NEURONS):
        part = pairs[pairs["kind"] == kind]
        square = part.pivot(index="block", columns="other", values="cka").to_numpy()
        assert square.shape == (BLOCKS, BLOCKS)
        np.testing.assert_allclose(square, square.T)
        np.testing.assert_allclose(np.diag(square), 1, atol=1e-6)


def test_a_finished_run_is_read_and_not_made_again(runs, capsys):
    network = replace(small(), load=lambda _: pytest.fail("the model was loaded again"))
    measurements.measure_all(network, runs, runs, 80)
    assert "small main" in capsys.readouterr().out


def test_a_run_of_another_size_is_refused(runs):
    with pytest.raises(StateError, match="another size"):
        measurements.measure_all(small(), runs, runs, 60)


def test_shuffled_weights_stand_beside_the_trained_ones(runs):
    controls.measure_shuffled(small(), runs, runs, 80)
    rows = controls.against_shuffled(small(), runs)
    assert list(rows["block"]) == list(range(BLOCKS))
    shuffled = pc.Analysis.load(runs / "small" / controls.SHUFFLED)
    assert rows["exponent_shuffled"][2] == shuffled["2", "spectrum"].exponent
    assert (rows["exponent_shuffled"] != rows["exponent_trained"]).all()
    assert set(rows["samples_shuffled"]) == {480}


def test_the_page_has_a_line_for_every_block(tables):
    network = small()
    verdicts = judge(claims.claims(NETWORKS), tables)
    text = page.markdown(tables, verdicts, [network], [("a.png", "of a"), ("b.png", "of b")])
    begin = text.index("### A small network")
    lines = [line for line in text[begin:].splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines] == 2 * [
        "| block",
        "| 0",
        "| 1",
        "| 2",
        "| 3",
        "| 4",
    ]
    assert "images/a.png" in text
    assert "nan" not in text
    row = tables["sites"].iloc[1]
    assert f"{row['exponent']:.2f} ({row['exponent_low']:.2f}" in text.replace("−", "-")
    # The first block keeps all of its own code: that is no measurement.
    assert lines[1].endswith("– | – |")


def test_numbers_without_an_interval_have_none():
    row = {"a": 1.234, "a_low": math.nan, "a_high": math.nan}
    assert page.between(row, "a", 2) == "1.23"
    assert page.between({**row, "a_low": -1.0, "a_high": 2.0}, "a", 1) == "1.2 (−1.0–2.0)"
    assert page.between({**row, "a": math.nan}, "a", 2) == "–"


# -- sentences -------------------------------------------------------------------------------------

TITLES = {"one": "One", "two": "Two"}


def by_depth(first, second, column="exponent") -> pd.DataFrame:
    rows = []
    for name, function in (("one", first), ("two", second)):
        for block in range(10):
            value = function(block / 9)
            rows.append({"network": name, "kind": RESIDUAL, "block": block, "depth": block / 9,
                         column: value, f"{column}_low": value - 0.01,
                         f"{column}_high": value + 0.01})  # fmt: skip
    return pd.DataFrame(rows)


def test_what_falls_everywhere_is_the_same():
    found = findings.trend(by_depth(lambda d: 2 - d, lambda d: 1 - d**2), TITLES, "exponent", "it")
    assert found.same
    assert found.sentence == "It falls with depth in all networks (One −1.00; Two −1.00)."


def test_what_rises_in_one_and_falls_in_the_other_is_not():
    found = findings.trend(by_depth(lambda d: 2 - d, lambda d: d), TITLES, "exponent", "it")
    assert not found.same
    assert found.sentence.startswith("It falls in One, rises in Two")


def test_what_was_measured_in_one_network_is_said_of_it_alone():
    rows = by_depth(lambda d: 2 - d, lambda _: math.nan)
    found = findings.trend(rows, TITLES, "exponent", "it")
    assert not found.same
    assert "the only network" in found.sentence


def test_kinds_of_sites_are_held_against_each_other():
    low = by_depth(lambda _: 0.5, lambda _: 0.5).assign(kind=NEURONS)
    high = by_depth(lambda _: 1.0, lambda _: 1.5)
    rows = pd.concat([low, high])
    found = findings.against(rows, TITLES, NEURONS, RESIDUAL, "exponent")
    assert found.same
    assert "10 of 10, median difference −0.50" in found.sentence
    assert findings.against(rows, TITLES, RESIDUAL, NEURONS, "exponent").same
    mixed = pd.concat([low, by_depth(lambda d: d, lambda _: 1.5)])
    assert not findings.against(mixed, TITLES, NEURONS, RESIDUAL, "exponent").same


def test_sides_of_one_are_counted_by_intervals():
    found = findings.below_one(by_depth(lambda _: 0.9, lambda d: 0.9 + 0.2 * d), TITLES)
    assert not found.same
    assert "One 10 below, 0 above, 0 on both sides" in found.sentence
    assert findings.below_one(by_depth(lambda _: 0.9, lambda _: 0.8), TITLES).same


# -- controls --------------------------------------------------------------------------------------


def test_moments_are_those_of_known_distributions():
    draw = torch.Generator().manual_seed(0)
    gaussian = torch.randn(40_000, 3, generator=draw) + 0.0
    silent = torch.rand(40_000, 3, generator=draw) < 0.1
    moments, sparse = controls.Moments(), controls.Moments()
    for part in gaussian.split(1000):
        moments.update(part + 2)
    sparse.update(silent.float())
    np.testing.assert_allclose(moments.kurtosis, 3, atol=0.1)
    # 0 or 1 with mean p: (1 - 3p + 3p^2) / (p (1 - p)), and sparseness 1 - p.
    np.testing.assert_allclose(sparse.kurtosis, 0.73 / 0.09, rtol=0.05)
    np.testing.assert_allclose(sparse.sparseness, 0.9, atol=0.01)
    plain = controls.Moments()
    plain.update(gaussian)
    np.testing.assert_allclose(plain.sparseness, 1 - 2 / math.pi, atol=0.01)


def test_a_sparse_basis_is_told_from_its_rotation():
    draw = torch.Generator().manual_seed(0)
    sparse = torch.randn(5000, 40, generator=draw) * (torch.rand(5000, 40, generator=draw) < 0.05)
    row = controls.basis_row(iter(sparse.split(500)), 0)
    assert row["samples"] == 5000
    assert row["kurtosis"] > 8 * row["kurtosis_rotated"]
    assert row["sparseness"] > row["sparseness_rotated"] + 0.3
    dense = controls.basis_row(iter([torch.randn(5000, 40, generator=draw)]), 0)
    assert dense["kurtosis"] == pytest.approx(dense["kurtosis_rotated"], rel=0.05)


def test_a_rotation_is_one():
    turn = controls.rotation(30, 256, 0)
    torch.testing.assert_close(turn.T @ turn, torch.eye(30, dtype=torch.float64))


def test_earlier_numbers_agree_where_intervals_meet(runs):
    found = pc.Analysis.load(runs / "small" / "main")
    results = {block: found["1"] for block, *_ in earlier.EARLIER}
    rows = earlier.beside(results)
    low, high = found["1", "spectrum"].interval
    for row, (_, _, then_low, then_high, *_) in zip(
        rows.to_dict("records"), earlier.EARLIER, strict=True
    ):
        assert row["agrees"] == (low <= then_high and then_low <= high)


def test_pictures_are_drawn_of_all_tables(tables, tmp_path):
    pictures = figures.draw({**tables, **EXTRA}, [small()], tmp_path)
    assert len(pictures) == 4
    for name, caption in pictures:
        assert caption.endswith(".")
        content = (tmp_path / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 300_000


EXTRA = {
    "shuffled": pd.DataFrame(
        {"block": [0, 1]}
        | {f"exponent_{name}{end}": [1.0, 1.1] for name in ("trained", "shuffled")
           for end in ("", "_low", "_high")}
    ),
    "checkpoints": pd.DataFrame(
        {"step": [0, 0, 9, 9], "group": [0, 1, 0, 1], "effective_rank": [3.0, 4, 5, 6],
         "exponent": [1.0, 1.1, 0.9, 0.8]}
    ),
    "widths": pd.DataFrame(
        {"inner": [32, 64], "network": [0, 0], "block": [0, 0], "soft": [4.0, 8], "hard": [2.0, 3]}
    ),
    "bases": pd.DataFrame(
        {"network": ["small"] * 2, "group": [0, 0], "block": [0, 1], "kurtosis": [9.0, 8],
         "kurtosis_rotated": [3.0, 3]}
    ),
}  # fmt: skip
