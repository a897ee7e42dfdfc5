"""A memory plan: what the statistics of a run will take, against what there is.

It is made when each site has fired once, from widths alone, before the states have grown. What does
not fit goes through the data in several passes, some of the sites in each, or is refused with the
choices there are.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

from polycode_plugins.activations import Activations, Site
from polycode_plugins.adapters.base import Sink
from polycode_plugins.errors import DataError
from polycode_plugins.metrics.base import Memory, Metric
from polycode_plugins.metrics.pairs import PairMetric
from polycode_plugins.metrics.processes import processes
from polycode_plugins.metrics.triangle import blas_threads
from polycode_plugins.runs.gathering import Statistics, listed

GIB = 2**30
_SPARE = 0.9  # of what is free: the rest is for activations, the table of results, the report
_WIDE = 2**25  # bytes of a state, from which on one look at memory a site costs nothing beside it
_HELPER = 2**27  # bytes of a process that helps with results, at most
_UNITS = {"": 1, "k": 1, "m": 2, "g": 3, "t": 4}


@contextmanager
def side_by_side(workers: int, helpers: int = 0) -> Iterator[ThreadPoolExecutor]:
    """Threads for results of several sites, with one of BLAS each.

    The matrices of a result are small: BLAS with threads of its own waits for them longer than it
    computes, three times as long at 30 sites of width 576.

    helpers: processes beside this one (`metrics.processes`).
    """
    # A fork has no threads of its parent's; torch begins anew where it is first used, and twice at
    # once it fails ("Invalid thread pool").
    torch.set_num_threads(torch.get_num_threads())
    with blas_threads().limit(limits=1), processes(helpers), ThreadPoolExecutor(workers) as pool:
        yield pool


class TooLarge(DataError):
    """The statistics of all sites do not fit into memory together.

    Attributes:
        groups: names of sites that do, for one pass over the data each; empty where even a single
            site does not.
    """

    def __init__(self, message: str, groups: Sequence[Sequence[str]]) -> None:
        super().__init__(message)
        self.groups = [list(group) for group in groups]


class Room:
    """Memory for the statistics of a run.

    Args:
        limit: bytes that this process may take in all; None for what the machine has.
        processes: of this run on the machine, which share it.
        divided: the sites are those of one pass of several, which fit: none is refused.
    """

    def __init__(
        self, limit: int | None = None, processes: int = 1, *, divided: bool = False
    ) -> None:
        self.limit = limit
        self.processes = processes
        self.divided = divided
        self.ceiling = Ceiling()

    def workers(self, statistics: Statistics) -> int:
        """How many sites may compute their results side by side: one for each processor, or as many
        as have room for it."""
        most = min(len(statistics.sites), os.cpu_count() or 1) or 1
        one = max((need.computing for need in statistics.memory(None).values()), default=0)
        free = self.free(statistics)
        return most if free is None or not one else max(1, min(most, free // one))

    def helpers(self, workers: int) -> int:
        """How many processes so many threads may have beside them; none within a limit, which is
        of this process and would not hold for others."""
        free = min(_rooms(), default=None)
        if self.limit is not None or self.processes > 1 or free is None:
            return 0
        return min(workers, int(_SPARE * free) // _HELPER)

    def free(self, statistics: Statistics) -> int | None:
        """Bytes for the states, where these are; None where the system does not say."""
        devices = [d for d in statistics.devices if d.type == "cuda"]
        if devices:
            rooms = [torch.cuda.mem_get_info(device)[0] for device in devices]
            used = [torch.cuda.memory_allocated(device) for device in devices]
            if self.limit is not None:
                rooms = [min(r, self.limit - u) for r, u in zip(rooms, used, strict=True)]
            return max(0, int(_SPARE * min(rooms)))
        rooms = [room // self.processes for room in _rooms()]
        if self.limit is not None:
            rooms.append(self.limit - resident())
        return max(0, int(_SPARE * min(rooms))) if rooms else None

    def require(self, statistics: Statistics, rows: int | None) -> None:
        """See that the states will fit.

        Args:
            statistics: of sites that have fired once.
            rows: of the data that will come at most; None where nobody knows.

        Raises:
            TooLarge: with the groups of sites that fit.
        """
        free = self.free(statistics)
        if free is None:
            return
        needs = statistics.memory(rows)
        if self.processes > 1:  # the state of another is received beside one's own
            needs = {site: Memory(2 * n.held, n.computing) for site, n in needs.items()}
        wanted = _together(list(needs.values()))
        if wanted <= free or self.divided:
            largest = max((need.held for need in needs.values()), default=0)
            self.ceiling = Ceiling(resident() + wanted, self.limit, largest)
            return
        clusters = _clusters(statistics)
        groups = _packed(clusters, needs, free)
        widest = max(needs, key=lambda site: needs[site].held)
        limited = (
            ""
            if self.limit is None
            else f", of a limit of {size(self.limit)} of which {size(resident())} are in use"
        )
        said = (
            f"the statistics of {len(needs)} sites will take {size(wanted)} ({widest!r} alone "
            f"{size(needs[widest].held)}, and {size(needs[widest].computing)} while its result is "
            f"computed), and {size(free)} are free{limited}"
        )
        if groups is None:
            large = [c for c in clusters if _together([needs[s] for s in c]) > free]
            names = [site for cluster in large for site in cluster]
            alone = "by itself" if len(large[0]) == 1 else "with those that a metric compares it to"
            raise TooLarge(
                f"{said}: none of {listed(names)} fits even {alone}; leave them out (for example "
                f"!{names[0]}), give fewer rows (limit), or more memory",
                [],
            )
        raise TooLarge(
            f"{said}; choose: out= (--out FOLDER) with data that can be read again, then "
            f"{len(groups)} passes over the data take some of the sites each; fewer sites (the "
            f"first {len(groups[0])} fit); fewer rows (limit); or more memory",
            groups,
        )


def _together(needs: Sequence[Memory]) -> int:
    return sum(n.held for n in needs) + max((n.computing for n in needs), default=0)


def _clusters(statistics: Statistics) -> list[list[str]]:
    """Sites that cannot be parted since the metrics of one need the other, in order."""
    sites = list(statistics.sites.values())
    root = {site.name: site.name for site in sites}

    def top(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for metric, site in _pairs(statistics):
        for other in metric.partners_of(site, sites):
            root[top(other.name)] = top(site.name)
    found: dict[str, list[str]] = {}
    for site in sites:
        found.setdefault(top(site.name), []).append(site.name)
    return list(found.values())


def _packed(
    clusters: Sequence[list[str]], needs: dict[str, Memory], free: int
) -> list[list[str]] | None:
    """The clusters in as few groups that fit as their order gives; None where one does not."""
    groups: list[list[str]] = []
    for cluster in clusters:
        if _together([needs[s] for s in cluster]) > free:
            return None
        if groups and _together([needs[s] for s in (*groups[-1], *cluster)]) <= free:
            groups[-1] += cluster
        else:
            groups.append(list(cluster))
    return groups


def separable(statistics: Statistics, groups: Sequence[Sequence[str]]) -> bool:
    """Whether the metrics compare every site with the same ones when only its group is there."""
    sites = list(statistics.sites.values())
    for group in groups:
        own = [site for site in sites if site.name in group]
        for metric, site in _pairs(statistics):
            if site.name in group:
                whole = [other.name for other in metric.partners_of(site, sites)]
                if whole != [other.name for other in metric.partners_of(site, own)]:
                    return False
    return True


def _pairs(statistics: Statistics) -> Iterator[tuple[PairMetric, Site]]:
    metrics: Sequence[Metric] = statistics.metrics
    for metric in metrics:
        if isinstance(metric, PairMetric):
            for site in statistics.sites.values():
                yield metric, site


def bytes_of(text: str | int) -> int:
    """The number of bytes that "8GiB", "500 MB" or a number says; 1 GiB is 2^30 of them.

    Raises:
        DataError: for anything else.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt]?)(i?)b?)?\s*", str(text).lower())
    count = 0
    if found is not None and not isinstance(text, bool):
        number, unit, binary = found[1], found[2] or "", found[3]
        count = int(float(number) * (1024 if binary else 1000) ** (_UNITS[unit] if unit else 0))
    if count < 1:
        raise DataError(f"memory is a number of bytes such as 8GiB or 500MB, not {text!r}")
    return count


def size(count: int) -> str:
    """A number of bytes for people."""
    if abs(count) < GIB / 10:
        return f"{count / 2**20:.1f} MiB"
    return f"{count / GIB:.1f} GiB"


class Ceiling:
    """What a process was planned to hold, kept by handing free memory back to the system.

    Rows that wait and what is made of a batch alternate in memory, and glibc keeps what comes free
    between them: half as much again as is in use.

    Args:
        planned: bytes; None for what the process holds now.
        limit: bytes that were given as a limit.
        largest: bytes of the largest state among the sites.
    """

    def __init__(
        self, planned: int | None = None, limit: int | None = None, largest: int = 0
    ) -> None:
        planned = resident() if planned is None else planned
        self._limit = limit
        self._at = planned if limit is None else min(planned, limit)
        self._wide = largest >= _WIDE

    def keep(self) -> None:
        """Hand free memory back where the process holds more."""
        if resident() > self._at:
            release()
            # What is in use beyond the plan is not handed back, however often it is tried.
            if (used := resident()) > self._at:
                self._at = used * 11 // 10
                if self._limit is not None and used < self._limit:
                    self._at = min(self._at, self._limit)

    def between(self, receive: Sink) -> Sink:
        """`receive`, and `keep` after each site where a batch of them would leave much behind."""
        if not self._wide:
            return receive

        def received(site: str, activations: Activations) -> None:
            receive(site, activations)
            self.keep()

        return received


def release() -> None:
    """Hand memory that came free back to the system."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another allocator than glibc's
        return


def resident() -> int:
    """Bytes of memory that this process holds; the most it has held where only that is known."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _rooms() -> list[int]:
    """What may still be taken by each limit of the system that is known."""
    rooms = [*_control_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known = dict(line.split(":", 1) for line in lines)
        rooms.append(int(known["MemAvailable"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError):
        pass
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            rooms.append(soft - pages * resource.getpagesize())
        except (OSError, ValueError, IndexError):
            pass
    return rooms


def _control_groups(own: Path, mounted: Path) -> Iterator[int]:
    """What the control groups of this process, of version 1 or 2, leave of their limits.

    Args:
        own: the file with the groups of this process.
        mounted: where the groups are.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            names = ("memory.max", "memory.current", "inactive_file")
            root = mounted
        elif "memory" in kinds.split(","):
            names = (
                "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
            )  # fmt: skip
            root = mounted / "memory"
        else:
            continue
        parts = Path(path.lstrip("/"))
        # Each group above limits too; in a container the path may be that outside of it.
        for folder in (root / parts, *(root / up for up in parts.parents), root):
            room = _left(folder, *names)
            if room is not None:
                yield room


def _left(folder: Path, limit: str, used: str, cached: str) -> int | None:
    """What a control group leaves; caches of files go when memory is needed."""
    try:
        most = int((folder / limit).read_text(encoding="ascii"))
        now = int((folder / used).read_text(encoding="ascii"))
        stat = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):  # "max": no limit
        return None
    files = next((int(s.split()[1]) for s in stat if s.split()[:1] == [cached]), 0)
    return most - now + files
