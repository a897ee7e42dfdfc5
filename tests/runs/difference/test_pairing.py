"""What pairs two runs' numbers, planted differences, and every sentence of what does not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins.activations import Activations
from polycode_plugins.metrics import CKA, Capacity, Reservoir, Spectrum
from polycode_plugins.metrics.influences import Influences
from polycode_plugins.report.difference_page import page_of
from polycode_plugins.runs.difference import between
from polycode_plugins.runs.difference.pairing import _in_common

WIDTH = 24
METRICS = [Spectrum(ranks=(1, None)), CKA()]


def data(seed: int = 0, rows: int = 300) -> torch.Tensor:
    return torch.randn(rows, 2 * WIDTH, generator=torch.Generator().manual_seed(seed))


def network(exponent: float, kept: float = 1.0) -> nn.Module:
    """Its code has the law i^-exponent; a share `kept` of its variance is of the first half of the
    inputs, the rest of the second."""
    scale = torch.arange(1.0, WIDTH + 1) ** (-exponent / 2)
    made = nn.Linear(2 * WIDTH, WIDTH, bias=False)
    with torch.no_grad():
        made.weight[:, :WIDTH] = torch.diag(scale) * kept**0.5
        made.weight[:, WIDTH:] = torch.diag(scale) * (1 - kept) ** 0.5
    return nn.Sequential(made, nn.Tanh())


def run(exponent=1.0, kept=1.0, inputs=None, metrics=METRICS, sites=("0",)):
    inputs = data() if inputs is None else inputs
    return pc.analyze(network(exponent, kept), inputs, metrics, list(sites))


def of(found, field: str, metric: str = "spectrum"):
    return next(d for d in found.differences if (d.metric, d.field) == (metric, field))


def alone(one):
    """The interval as of independent runs, by the results' own."""
    return one.interval[1] - one.interval[0]


@pytest.mark.parametrize(("exponent", "kept", "width"), [(1.1, 1.0, 0.2), (1.0, 0.8, 0.85)])
def test_a_planted_difference_is_held_by_a_narrower_interval(exponent, kept, width):
    held, narrower = 0, []
    for seed in range(5):
        inputs = data(seed)
        one, other = run(inputs=inputs), run(exponent, kept, inputs)
        line = of(pc.diff(one, other), "exponent")
        assert line.paired
        assert line.interval is not None
        low, high = between(
            line.first, one["0", "spectrum"].interval, line.second, other["0", "spectrum"].interval
        )
        held += line.interval[0] <= exponent - 1 <= line.interval[1]
        narrower.append((line.interval[1] - line.interval[0]) / (high - low))
    assert held >= 4
    assert max(narrower) < width
    # The errors of one half of the variance's part do not go together with the other's.
    assert min(narrower) > (0.0 if kept == 1 else 0.4)


def test_nothing_of_what_is_independent_is_paired_away():
    """The codes of both runs are of other halves of the same rows."""
    counted = []
    for seed in range(4):
        inputs = data(seed)
        line = of(pc.diff(run(inputs=inputs), run(kept=0.0, inputs=inputs)), "exponent")
        assert line.errors is not None
        assert abs(line.errors.estimate) < 3.5 * line.errors.error
        counted.append(line.counted)
    assert abs(np.mean(counted)) < 0.1


def test_a_run_beside_itself_is_surely_the_same():
    found = pc.diff(run(), run())
    bounded = [d for d in found.differences if d.interval is not None and d.metric == "spectrum"]
    assert {d.field for d in bounded} >= {"exponent", "effective_rank", "spectral_entropy"}
    for line in bounded:
        assert line.paired
        assert line.interval is not None
        assert line.interval[0] <= 0 <= line.interval[1]
        own = run()["0", "spectrum"].intervals()[line.field]
        assert alone(line) < 0.05 * (own[1] - own[0])


def test_a_sign_that_is_wrong_shows(monkeypatch):
    """An influence that rises where its number falls makes the interval wide, and not narrow."""
    right = of(pc.diff(run(), run(1.1)), "exponent")
    influences = Spectrum.influences

    def turned(self, accumulators, result, samples):
        found = influences(self, accumulators, result, samples)
        sign = -1 if result.exponent > 1.05 else 1
        return found._replace(values={n: sign * v for n, v in found.values.items()})

    monkeypatch.setattr(Spectrum, "influences", turned)
    wrong = of(pc.diff(run(), run(1.1)), "exponent")
    assert right.counted > 0.9
    assert wrong.counted < -0.9
    assert alone(wrong) > 8 * alone(right)


def test_redundancy_is_paired_too():
    found = pc.diff(*(run(e, metrics=[Capacity(), CKA()]) for e in (1.0, 1.1)))
    for field in ("redundancy", "redundancy_fraction"):
        line = of(found, field, "capacity")
        assert line.evident
        assert line.counted > 0.95


def test_it_is_told_everywhere(tmp_path):
    found = pc.diff(run(), run(1.1))
    line = of(found, "exponent")
    frame = found.to_dataframe().set_index(["metric", "field"])
    row = frame.loc[("spectrum", "exponent")]
    assert row["paired"]
    assert row["correlation"] == line.errors.estimate
    assert row["correlation_error"] == line.errors.error
    assert row["correlation_counted"] == line.counted < row["correlation"]
    assert row["unpaired"] == ""
    lines = json.loads(json.dumps(found.to_dict(), allow_nan=False))["differences"]
    assert lines[0]["paired"] is True
    assert lines[0]["correlation"] == pytest.approx(line.errors.estimate, abs=1e-9)
    assert any("intervals of differences are paired" in note for note in found.notes)
    html = found.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"{line.errors.estimate:.3f} ({line.counted:.3f} counted)" in html


def unpaired(found) -> str:
    """The note on intervals that are not paired, which none is."""
    assert not any(d.paired for d in found.differences)
    return "\n".join(found.notes)


def test_other_rows_are_not_paired():
    one, other = run(), run(1.1, inputs=data(1))
    found = pc.diff(one, other)
    assert "not paired but as of independent runs" in unpaired(found)
    assert "the runs are of other rows" in unpaired(found)
    line = of(found, "exponent")
    assert "the runs are of other rows" in line.unpaired
    assert line.interval == between(
        line.first, one["0", "spectrum"].interval, line.second, other["0", "spectrum"].interval
    )
    cells = [c for s in page_of(found).sections for p in s.parts for c in getattr(p, "columns", ())]
    assert any(cell.text == "not paired" for column in cells for cell in column.cells)


def test_it_can_be_left_undone():
    one, other = run(), run(1.1)
    found = pc.diff(one, other, paired=False)
    assert "that was asked for, by paired=False or --unpaired" in unpaired(found)
    line = of(found, "exponent")
    assert alone(line) > 3 * alone(of(pc.diff(one, other), "exponent"))


def test_runs_that_kept_no_samples_or_other_ones_are_not_paired():
    found = pc.diff(run(metrics=METRICS[:1]), run())
    assert "the first run has kept no samples that could be compared" in unpaired(found)
    assert "make it with the metric 'cka'" in unpaired(found)
    found = pc.diff(run(), run(metrics=[METRICS[0], CKA(seed=1)]))
    assert "the runs kept other samples of their rows (seed 0 and 1)" in unpaired(found)
    assert "one seed of the metric 'cka'" in unpaired(found)


def test_a_number_that_has_no_influences_is_not_paired():
    found = pc.diff(*(run(exponent, sites=("0", "1")) for exponent in (1.0, 1.1)))
    assert of(found, "exponent").paired
    why = of(found, "to_first", "cka")
    assert not why.paired
    assert "nothing says what a sample adds to the error of cka" in why.unpaired
    assert any("Not paired, " in n and "`Metric.influences`" in n for n in found.notes)


def test_too_few_documents_are_not_paired():
    inputs = torch.randn(12, 40, 2 * WIDTH, generator=torch.Generator().manual_seed(0))
    found = pc.diff(run(inputs=inputs), run(1.1, inputs=inputs))
    assert "worth 12 of one length, and it takes 20" in unpaired(found)


class Maps(nn.Module):
    """A map, and a coarser one."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(WIDTH, WIDTH, 1), nn.AvgPool2d(2)

    def forward(self, x):
        return self.coarse(self.fine(x))


def test_maps_of_other_resolution_are_not_paired():
    images = torch.randn(60, WIDTH, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    made = pc.analyze(Maps(), images, [Spectrum(ranks=(1, None), positions="samples"), CKA()])
    sites = {s.name: s for s in made.sites}
    fine, coarse = next(n for n in sites if "fine" in n), next(n for n in sites if "coarse" in n)
    found = pc.diff(made, made, sites={fine: coarse})
    assert "the sites have 2,160 and 540 samples of the same rows" in unpaired(found)
    assert of(pc.diff(made, made, sites={fine: fine}), "exponent").paired


def reservoir(documents, places=None, rows=None) -> Reservoir:
    kept = Reservoir()
    values = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(3) if rows is None else rows
    kept.update(
        Activations(
            values,
            ("batch", "position", "feature"),
            mask=places,
            rows=rows,
            documents=None if documents is None else torch.tensor(documents),
        )
    )
    return kept


def test_sites_whose_rows_mean_something_else_are_not_paired():
    same = reservoir([0, 0, 1])
    assert len(np.unique(_in_common(same, reservoir([0, 0, 1]), 3).kept.document)) == 2
    with pytest.raises(pc.DataError, match=r"belong to other documents .*the same documents"):
        _in_common(same, reservoir([0, 1, 2]), 3)
    with pytest.raises(pc.DataError, match="kept no sample of the same row"):
        _in_common(same, reservoir([0, 0, 1], rows=torch.arange(3, 6)), 3)
    first, last = (torch.zeros(3, 4, dtype=torch.bool) for _ in range(2))
    first[:, :2] = last[:, 2:] = True
    with pytest.raises(pc.DataError, match="different positions of a row"):
        _in_common(reservoir(None, first), reservoir(None, last), 3)


@dataclass(frozen=True)
class Misshapen(Spectrum):
    """Influences of another number of samples."""

    name: ClassVar[str] = "misshapen"

    def influences(self, accumulators, result, samples):
        return Influences({"exponent": np.zeros(3)})


def test_a_plugins_influences_are_checked():
    metrics = [Misshapen(ranks=(1, None)), CKA()]
    found = pc.diff(run(metrics=metrics), run(metrics=metrics))
    assert "not one number for each sample; mend `Metric.influences`" in unpaired(found)
