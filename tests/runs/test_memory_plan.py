"""The memory plan: what is free, what is needed, and passes over the data that give the same."""

from __future__ import annotations

import itertools
import json
import platform
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info
from torch import nn

import polycode_plugins as pc
from polycode_plugins.activations import Activations, Site
from polycode_plugins.files import storage
from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.runs import memory
from polycode_plugins.runs.gathering import Statistics

ROWS, WIDTH = 300, 40
DATA = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(0))
SITES = ["1", "3", "5", "7"]
AXES = ("batch", "position", "feature")
METRIC = pc.metrics.Spectrum(fit="huber", ranks=(1, 500))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        widths = [8, WIDTH, WIDTH, WIDTH, WIDTH]
        pairs = itertools.pairwise(widths)
        return nn.Sequential(*(m for a, b in pairs for m in (nn.Linear(a, b), nn.Tanh())))


def analyzed(data=DATA, **options) -> pc.Analysis:
    options = {"metrics": METRIC, "sites": SITES, "batch_size": 20, **options}
    return pc.analyze(network(), data, **options)


@pytest.fixture
def two_at_a_time(monkeypatch):
    """Room for two of the sites."""
    seen = []

    def free(room: memory.Room, statistics: Statistics) -> int:
        needs = list(statistics.memory(None).values())
        seen.append(len(needs))
        return 2 * needs[0].held + needs[0].computing

    monkeypatch.setattr(memory.Room, "free", free)
    return seen


def states(analysis: pc.Analysis) -> dict[str, torch.Tensor]:
    return analysis.statistics.state()


def test_several_passes_give_what_one_gives(tmp_path: Path, monkeypatch, two_at_a_time):
    made = analyzed(out=tmp_path / "passes")
    monkeypatch.undo()
    whole = analyzed(out=tmp_path / "whole")
    assert made.run["passes"] == 2
    assert "passes" not in whole.run
    assert list(made) == list(whole) == SITES
    assert states(made).keys() == states(whole).keys()
    assert all(torch.equal(states(made)[k], v) for k, v in states(whole).items())
    for site in SITES:
        a, b = made[site, "spectrum"].to_dict(), whole[site, "spectrum"].to_dict()
        assert json.dumps(a) == json.dumps(b)
        assert made.n_samples(site) == ROWS
    for field in ("rows", "content", "sites", "samples", "metrics"):
        assert made.run[field] == json.loads(json.dumps(whole.run[field]))
    assert not (tmp_path / "passes" / storage.GROUPS).exists()
    loaded = pc.Analysis.load(tmp_path / "passes")
    assert loaded["5", "spectrum"].exponent == made["5", "spectrum"].exponent


def test_an_interruption_between_passes_goes_on(tmp_path: Path, monkeypatch, two_at_a_time):
    class Stopping:
        left = 2 * (ROWS // 20)

        def __iter__(self):
            for batch in DATA.split(20):
                Stopping.left -= 1
                if not Stopping.left:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        analyzed(Stopping(), out=tmp_path / "run", memory="64GiB")
    monkeypatch.undo()  # with more memory by now, the plan stays
    first = storage.load_run(tmp_path / "run" / storage.GROUPS / "0")
    assert [site["name"] for site in first["sites"]] == SITES[:2]
    with pytest.raises(pc.StateError, match="not this one"):
        analyzed(Stopping(), out=tmp_path / "run", seed=1)
    with pytest.raises(pc.StateError, match=r"planned for 64\.0 GiB and not for 60\.0 GiB"):
        analyzed(Stopping(), out=tmp_path / "run", memory="60GiB")
    made = analyzed(Stopping(), out=tmp_path / "run")
    assert made.run["passes"] == 2
    whole = analyzed(list(DATA.split(20)))
    assert all(torch.equal(states(made)[k], v) for k, v in states(whole).items())


def test_passes_over_data_that_changes_are_refused(tmp_path: Path, two_at_a_time):
    class Shuffled:
        times = 0

        def __iter__(self):
            Shuffled.times += 1
            return iter((DATA + Shuffled.times).split(20))

    with pytest.raises(pc.StateError, match="passes over the data have not read the same"):
        analyzed(Shuffled(), out=tmp_path / "run")


def test_what_does_not_fit_is_refused_with_the_choices(tmp_path: Path, two_at_a_time):
    with pytest.raises(pc.DataError, match=r"out=.*2 passes over the data.*first 2 fit.*limit"):
        analyzed()
    with pytest.raises(pc.DataError, match="2 passes"):
        analyzed(iter(DATA.split(20)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert set(two_at_a_time) == {4}


def test_a_site_that_is_too_large_by_itself(monkeypatch):
    monkeypatch.setattr(memory.Room, "free", lambda *_: 1000)
    with pytest.raises(pc.DataError, match=r"none of 1, 3, 5, 7 fits even by itself.* !1\)"):
        analyzed()


def test_sites_that_a_metric_compares_stay_together(monkeypatch, tmp_path: Path):
    metric = pc.metrics.MINE(partner="7")
    monkeypatch.setattr(memory.Room, "free", lambda *_: 1000)
    with pytest.raises(pc.DataError, match="fits even with those that a metric compares it to"):
        analyzed(metrics=metric, out=tmp_path / "run")


def test_a_limit_that_the_process_is_over_already():
    with pytest.raises(pc.DataError, match=r"0\.0 MiB are free, of a limit of 1\.0 MiB"):
        analyzed(memory="1MiB")
    assert list(analyzed(memory="1TB")) == SITES


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GiB", 2**33), ("8 gib", 2**33), ("500MB", 500_000_000), ("1.5g", 1_500_000_000),
        ("64kB", 64_000), ("123", 123), (123, 123), ("2TiB", 2**41),
    ],
)  # fmt: skip
def test_sizes(text, count):
    assert memory.bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1", "0", "8 apples", "8XiB", True, "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(pc.DataError, match="such as 8GiB"):
        memory.bytes_of(text)


def test_control_groups_of_both_versions_and_those_above(tmp_path: Path):
    own, mounted = tmp_path / "cgroup", tmp_path / "sys"

    def group(path: str, names: tuple[str, str, str], limit: str, used: int, cached: int) -> None:
        folder = mounted / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")

    second = ("memory.max", "memory.current", "inactive_file")
    own.write_text("0::/job/step\n")
    group("job/step", second, "max", 50, 10)
    group("job", second, "1000", 400, 100)
    assert list(memory._control_groups(own, mounted)) == [700]
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    own.write_text("4:cpu,memory:/outside\n3:cpuset:/\n")
    group("memory", first, "900", 300, 0)  # as a container sees it
    assert set(memory._control_groups(own, mounted)) == {600}
    assert list(memory._control_groups(tmp_path / "none", mounted)) == []


@pytest.mark.parametrize("rows", [None, 30])
@pytest.mark.parametrize("width", [64, 300])
def test_a_covariance_keeps_within_what_it_says(width, rows):
    covariance = Covariance()
    batch = Activations(torch.empty(10, width, device="meta"), ("batch", "feature"))
    said = covariance.memory(batch, rows).held
    draw = torch.Generator().manual_seed(0)
    most = 0
    for _ in range(3 if rows else 900):
        covariance.update(Activations(torch.randn(10, width, generator=draw), batch.axes))
        panels = covariance._moments.panels if covariance._moments else []
        held = [*covariance._pending, *panels]
        most = max(most, sum(t.nbytes for t in held))
    assert most <= said <= 1.5 * most


def test_statistics_know_what_every_site_will_take():
    statistics = Statistics([METRIC], [Site("a", 0), Site("b", 1)])
    for site, width in (("a", 20), ("b", 200)):
        statistics.receive(site, Activations(torch.randn(50, width), ("batch", "feature")))
    needs = statistics.memory(None)
    assert list(needs) == ["a", "b"]
    assert needs["b"].held > 5 * needs["a"].held


def test_as_many_sites_compute_side_by_side_as_have_room(monkeypatch):
    statistics = analyzed().statistics
    one = max(need.computing for need in statistics.memory(None).values())
    monkeypatch.setattr(memory.os, "cpu_count", lambda: 3)
    found = {}
    for free in (0, one, 2 * one + one // 2, 100 * one, None):
        monkeypatch.setattr(memory.Room, "free", lambda *_, free=free: free)
        found[free] = memory.Room().workers(statistics)
    assert list(found.values()) == [1, 1, 2, 3, 3]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator keeps less back")
def test_what_comes_free_between_others_is_handed_back():
    memory.release()  # or the blocks go where memory is free already
    before = memory.resident()
    blocks = [torch.zeros(2**14) for _ in range(1600)]  # of 64 KiB: 100 MiB
    held = blocks[::2]
    blocks.clear()
    ceiling = memory.Ceiling(before + 60 * 2**20)
    assert memory.resident() > before + 80 * 2**20
    ceiling.keep()
    assert memory.resident() < before + 70 * 2**20
    assert len(held) == 800


def test_what_is_in_use_is_not_tried_again_and_again(monkeypatch):
    tried = []
    monkeypatch.setattr(memory, "release", lambda: tried.append(1))
    monkeypatch.setattr(memory, "resident", lambda: 1000)
    ceiling = memory.Ceiling(500)
    for _ in range(5):
        ceiling.keep()
    assert len(tried) == 1
    monkeypatch.setattr(memory, "resident", lambda: 1200)
    ceiling.keep()
    assert len(tried) == 2


def test_what_comes_free_under_the_plan_raises_it_not(monkeypatch):
    held = [1000]
    monkeypatch.setattr(memory, "release", lambda: held.append(490))
    monkeypatch.setattr(memory, "resident", lambda: held[-1])
    ceiling = memory.Ceiling(500)
    for _ in range(3):
        held.append(510)
        ceiling.keep()
        assert held[-1] == 490  # a tenth more than what is in use would be above the plan


@pytest.mark.parametrize(("largest", "looks"), [(2**20, 0), (2**28, 3)])
def test_after_each_wide_site_memory_is_looked_at(largest, looks, monkeypatch):
    came, trimmed = [], []
    monkeypatch.setattr(memory, "release", lambda: trimmed.append(1))
    ceiling = memory.Ceiling(1, None, largest)
    receive = ceiling.between(lambda site, _: came.append(site))
    monkeypatch.setattr(memory, "resident", lambda: 1 if trimmed[len(came) - 1 :] else 2)
    for site in "abc":
        receive(site, None)
    assert (came, len(trimmed)) == ([*"abc"], looks)


def test_the_plan_knows_the_largest_state():
    statistics = Statistics([METRIC], [Site("a"), Site("b")])
    room = memory.Room(2**34)
    for site, width in (("a", 8), ("b", 4000)):
        values = torch.zeros(2, 1, width)
        statistics.receive(site, Activations(values, AXES))
    room.require(statistics, 8000)
    receive = statistics.receive
    assert room.ceiling.between(receive) != receive


def test_the_limit_holds_in_each_of_several_passes(tmp_path, monkeypatch, two_at_a_time):
    """Passes and their results had no limit; what memory holds then is planned by the machine."""
    ceilings = []
    keep = memory.Ceiling.keep

    def noting(ceiling):
        ceilings.append(ceiling)
        keep(ceiling)

    monkeypatch.setattr(memory.Ceiling, "keep", noting)
    made = analyzed(out=tmp_path / "run", memory="64GiB")
    assert made.run["passes"] == 2
    limited = {id(c): c._limit for c in ceilings}
    assert list(limited.values()).count(2**36) >= 2  # one of each pass, planned by its sites


def test_a_pass_for_what_fits_refuses_nothing(two_at_a_time):
    statistics = Statistics([METRIC], [Site(name) for name in SITES])
    for name in SITES:
        statistics.receive(name, Activations(torch.zeros(2, 1, WIDTH), AXES))
    with pytest.raises(memory.TooLarge):
        memory.Room(2**36).require(statistics, None)
    room = memory.Room(2**36, divided=True)
    room.require(statistics, None)
    assert room.ceiling._limit == 2**36


def test_beyond_the_plan_there_is_the_limit(monkeypatch):
    held = [100]
    monkeypatch.setattr(memory, "release", lambda: None)
    monkeypatch.setattr(memory, "resident", lambda: held[-1])
    ceiling = memory.Ceiling(500, 1000)
    tops = []
    for used in (600, 950, 990, 1200):
        held.append(used)
        ceiling.keep()
        tops.append(ceiling._at)
    assert tops == [660, 1000, 1000, 1320]  # what is in use beyond a limit is not handed back
    assert memory.Ceiling(500, 400)._at == 400


def test_threads_of_a_fork_find_torch_begun(monkeypatch):
    order = []
    monkeypatch.setattr(memory.torch, "set_num_threads", lambda _: order.append("begun"))
    with memory.side_by_side(2) as pool:
        pool.submit(order.append, "thread").result()
        blas = [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]
    assert order == ["begun", "thread"]
    assert set(blas) == {1}


def test_processes_beside_this_one_have_room_or_are_none(monkeypatch):
    monkeypatch.setattr(memory, "_rooms", lambda: [10 * 2**27, 2**40])
    assert memory.Room().helpers(4) == 4
    assert memory.Room().helpers(16) == 9  # a tenth of what is free is for other things
    assert memory.Room(2**36).helpers(4) == 0  # a limit is of one process
    assert memory.Room(processes=2).helpers(4) == 0  # others of this run have theirs
    monkeypatch.setattr(memory, "_rooms", lambda: [])
    assert memory.Room().helpers(4) == 0
