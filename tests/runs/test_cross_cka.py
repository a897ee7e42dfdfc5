"""CKA between two models: of runs that are there, of models in one call, or a reason why not."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import polycode_plugins as pc

DATA = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
SITES = ["1", "3"]


def network(seed: int = 0, width: int = 9) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(6, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        ).double()


def run(seed: int, out: Path | None = None, data=DATA, metrics=("cka",), **options) -> pc.Analysis:
    return pc.analyze(network(seed), data.double(), metrics, SITES, out=out, **options)


def test_two_runs_their_folders_and_two_models_say_what_the_arrays_say(tmp_path: Path):
    one, other = run(0, tmp_path / "a"), run(1, tmp_path / "b")
    found = pc.cka(one, other)
    by_folder = pc.cka(tmp_path / "a", str(tmp_path / "b"))
    models = pc.cka(network(0), network(1), DATA.double(), SITES)
    with torch.no_grad():
        codes = [network(seed)[:2](DATA.double()) for seed in (0, 1)]
    direct = pc.metrics.CKA().measure(*codes)
    for each in (found, by_folder, models):
        assert each.cka.shape == (2, 2)
        assert each.cka[0, 0] == pytest.approx(direct.cka[0], abs=1e-5)
        assert np.array_equal(each.cka, found.cka)
        assert each.low[0, 0] < each.cka[0, 0] < each.high[0, 0]
        assert each.samples.tolist() == [[200, 200], [200, 200]]
        assert each.warnings == ()
    assert found.same()["1"][0] == found.cka[0, 0]
    frame = found.to_dataframe()
    assert len(frame) == 4
    assert frame["cka"][1] == found.cka[0, 1]
    assert found.to_dict()["cka"][1][0] == found.cka[1, 0]
    assert "2 x 2 sites" in repr(found)
    ax = found.plot()
    plt.close(ax.figure)


def test_a_model_is_like_itself():
    assert pc.cka(run(0), run(0)).same()["3"][0] == pytest.approx(1, abs=1e-6)


def test_shards_that_were_merged_are_compared_with_a_run_of_all():
    parts = [run(0, shard=(i, 2)) for i in range(2)]
    assert pc.cka(parts[0].merge(parts[1]), run(0)).same()["1"][0] == pytest.approx(1, abs=1e-6)


def test_another_metric_that_keeps_samples_will_do():
    mine = pc.metrics.MINE(samples=100, estimators=("gaussian",))
    found = pc.cka(run(0, metrics=[mine]), run(1))
    assert found.samples.tolist() == [[100, 100], [100, 100]]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (lambda: run(1, data=DATA + 1), "the runs are of other rows \\(their digests"),
        (lambda: run(1, limit=100), "the runs are of other rows: 200 and 100 of them"),
        (lambda: run(1, metrics=[pc.metrics.CKA(seed=1)]), "kept other samples \\(seed 0 and 1\\)"),
        (
            lambda: run(1, metrics=[pc.metrics.Spectrum(fit="huber", ranks=(1, None))]),
            "the second run has kept no samples .* the metric 'cka'",
        ),
        (lambda: pc.measure({"1": DATA}, ["cka"]), "rows without numbers"),
    ],
)
def test_runs_that_nothing_proves_to_be_of_the_same_rows_are_refused(other, reason: str):
    with pytest.raises(pc.StateError, match=reason):
        pc.cka(run(0), other())


def test_a_run_and_a_model_are_not_mixed():
    with pytest.raises(pc.DataError, match="compared with a run, and a model with a model"):
        pc.cka(run(0), network(1), DATA)
    with pytest.raises(pc.DataError, match="are for models"):
        pc.cka(run(0), run(1), DATA)


def test_what_makes_them_doubtful_is_said():
    few = [run(s, data=DATA[:8]) for s in (0, 1)]
    found = pc.cka(*few)
    assert np.isnan(found.low).all()
    assert "the documents are worth 8.0 of one length, too few for an interval" in found.warnings[0]
    far = DATA.clone()
    far[:2] *= 1e4
    with torch.no_grad():
        nets = [nn.Sequential(nn.Linear(6, 5), nn.Identity()) for _ in range(2)]
    assert "at 0, 0 at most one sample in 40" in pc.cka(*nets, far, ["0"]).warnings[0]
