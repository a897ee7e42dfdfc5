"""A stream ends when its exponents are known, and its intervals hold for all looks at it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins.commands.main import main
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.files import storage
from polycode_plugins.runs import passes, stopping

TRUE = 1.2


class Planted(nn.Module):
    """A site whose population spectrum is i^-1.2, and one that is too narrow to be known."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.wide = nn.Linear(width, width, bias=False)
        self.narrow = nn.Linear(width, 16, bias=False)
        scale = torch.arange(1, width + 1, dtype=torch.float64) ** (-TRUE / 2)
        with torch.no_grad():
            self.wide.weight.copy_(torch.diag(scale))
            self.narrow.weight.copy_(torch.diag(scale)[:16])

    def forward(self, x):
        return self.wide(x)[:, :16] + self.narrow(x)


def data(rows: int, width: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def run(rows=20_000, sites="wide", target=0.03, **options):
    settings = {"batch_size": 250, "target_error": target} | options
    return pc.analyze(Planted(), data(rows), ["spectrum"], sites, **settings)


def test_all_looks_together_spend_the_errors_of_one_interval():
    total = sum(stopping.spent(look) for look in range(1, 100_000))
    assert total == pytest.approx(0.05, rel=1e-4)
    assert total < 0.05
    assert stopping.level_of(1) == pytest.approx(1 - 0.05 * 6 / math.pi**2)
    assert stopping.level_of(4) > stopping.level_of(3) > 0.95


def test_the_stream_ends_when_the_exponent_is_known():
    analysis = run()
    found = analysis.run["stopping"]
    assert found["stopped_early"]
    assert found["short"] == []
    assert found["rows_read"] == analysis.run["rows"]["count"] < 20_000
    # Looks are at 1024 and its doubles, at the end of the batch that reaches them.
    assert found["rows_read"] in {1250, 2250, 4250, 8250, 16500}
    assert found["rows_read"] + found["rows_saved"] == 20_000
    assert found["all_counted"]
    result = analysis["wide", "spectrum"]
    low, high = result.interval
    assert (high - low) / 2 == pytest.approx(found["half_widths"]["wide"])
    assert (high - low) / 2 <= 0.03
    assert low < TRUE < high
    # The interval is that of the look's level, which is wider than one of 95%.
    plain = pc.analyze(Planted(), data(found["rows_read"]), ["spectrum"], "wide", batch_size=250)
    assert plain["wide", "spectrum"].exponent == result.exponent
    own = plain["wide", "spectrum"].power_law
    assert own.level == 0.95
    assert result.power_law.interval == own.at_level(stopping.level_of(found["looks"])).interval
    assert high - low > own.interval[1] - own.interval[0]
    assert "for all the looks" in result.power_law.describe()
    assert "target_error" not in plain.run["options"]


def test_the_look_before_was_not_narrow_enough():
    found = run().run["stopping"]
    before = (found["rows_read"] - 250) // 2 + 250
    fewer = pc.analyze(Planted(), data(before), ["spectrum"], "wide", batch_size=250)
    level = stopping.level_of(found["looks"] - 1)
    assert stopping.half_width(fewer["wide", "spectrum"], level) > 0.03


def test_a_site_that_never_gets_there_is_told_with_what_it_reached():
    analysis = run(3000, ["wide", "narrow"], target=0.12)
    found = analysis.run["stopping"]
    assert not found["stopped_early"]
    assert found["short"] == ["narrow"]
    assert found["rows_read"] == 3000
    assert found["rows_saved"] == 0
    assert found["half_widths"]["narrow"] > 0.12 >= found["half_widths"]["wide"]
    # Looks were at 1024 and 2048 samples, and the end is the third.
    assert found["looks"] == 3
    assert found["level"] == stopping.level_of(3)
    (said,) = stopping.sentences(analysis.run)
    assert said.startswith("1 of 2 sites did not reach the error 0.12 by the end of the data")
    assert f"narrow are known to within {found['half_widths']['narrow']:.3g}" in said
    (said,) = stopping.sentences(run(3000, "wide", target=0.12).run)
    assert said.startswith("every exponent is known to within 0.12 after 1,250 samples")


def test_it_is_written_and_read_again(tmp_path):
    analysis = run(out=tmp_path / "run")
    again = pc.Analysis.load(tmp_path / "run")
    assert again.run["stopping"] == analysis.run["stopping"]
    assert again["wide", "spectrum"].power_law == analysis["wide", "spectrum"].power_law
    page = analysis.report(tmp_path / "report.html").read_text()
    assert "Every exponent is known to within 0.03" in page


def test_an_interrupted_stream_goes_on_with_the_same_looks(tmp_path, monkeypatch):
    whole = run(target=0.03)
    assert whole.run["stopping"]["looks"] >= 3
    monkeypatch.setattr(passes, "CHECKPOINT_SECONDS", 0.0)
    take, taken = passes._Run.take, [0]

    def killed(self, batch):
        taken[0] += 1
        if taken[0] == 13:  # after two looks
            raise KeyboardInterrupt
        take(self, batch)

    monkeypatch.setattr(passes._Run, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        run(target=0.03, out=tmp_path / "run")
    assert not storage.load_run(tmp_path / "run")["complete"]
    with pytest.raises(StateError, match="target_error is"):
        run(target=0.06, out=tmp_path / "run")
    again = run(target=0.03, out=tmp_path / "run")
    assert again.run["stopping"] == whole.run["stopping"]
    assert again["wide", "spectrum"].interval == whole["wide", "spectrum"].interval


def test_looks_of_a_run_that_was_resumed_at_its_end_count(tmp_path, monkeypatch):
    whole = run(3000, target=0.001)
    monkeypatch.setattr(passes, "CHECKPOINT_SECONDS", 0.0)
    finish = passes._Run.finish
    monkeypatch.setattr(passes._Run, "finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(3000, target=0.001, out=tmp_path / "run")
    monkeypatch.setattr(passes._Run, "finish", finish)
    again = run(3000, target=0.001, out=tmp_path / "run")
    assert again.run["stopping"] == whole.run["stopping"]
    assert again.run["stopping"]["looks"] == 3


def test_what_is_left_is_counted_only_while_that_is_quick(monkeypatch):
    monkeypatch.setattr(stopping, "COUNTING", -1.0)
    monkeypatch.setattr(stopping, "COUNTING_SHARE", 0.0)
    found = run()
    assert found.run["stopping"]["rows_saved"] == 250
    assert not found.run["stopping"]["all_counted"]
    assert "at least 250 samples" in stopping.sentences(found.run)[0]


@pytest.mark.parametrize("target", [0, -0.1, True, "0.02", math.nan])
def test_what_is_no_error_is_refused(target):
    with pytest.raises(DataError, match="half the width"):
        run(target=target)


def test_what_sees_a_part_of_the_data_is_refused(monkeypatch):
    with pytest.raises(DataError, match="a shard sees a part of it"):
        run(shard=(0, 2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(DataError, match="a process of several sees a part of it"):
        run()


def test_several_passes_are_refused(tmp_path):
    with pytest.raises(DataError, match="in one pass"):
        run(sites=["wide", "narrow"], out=tmp_path / "run", memory=1000)


def test_a_run_without_an_interval_is_refused():
    for metrics in (["capacity"], [pc.metrics.Spectrum(fit="huber")]):
        with pytest.raises(DataError, match="'debiased'"):
            pc.analyze(Planted(), data(500), metrics, "wide", target_error=0.1)


def test_the_command_says_what_came_of_it(capsys):
    site = ["--sites", "blocks.1.hook_resid_post", "--limit", "60"]
    assert main(["analyze", *site, "--target-error", "0.001", "--quiet"]) == 0
    said = capsys.readouterr().err
    assert "1 of 1 sites did not reach the error 0.001 by the end of the data" in said
    assert main(["analyze", *site, "--target-error", "-1", "--quiet"]) == 2
    assert "half the width" in capsys.readouterr().err
