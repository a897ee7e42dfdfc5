"""Metrics of pairs of sites: what one layer of a model has to do with others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from polycode_plugins.activations import Activations, Site
from polycode_plugins.metrics.base import Accumulator, Metric, Result


@dataclass(frozen=True, eq=False)
class Partner:
    """The other site of a pair, or one of all sites.

    Attributes:
        site: the site.
        accumulators: the metric's own at that site, by the metric's names for them.
    """

    site: Site
    accumulators: Mapping[str, Accumulator]


@dataclass(frozen=True)
class PairMetric(Metric):
    """A metric whose result at a site depends on other sites of the same run.

    Mutual information and CKA are. It has the same accumulators at every site, as any metric; what
    they must have in common is theirs to arrange: `Reservoir` keeps the same rows at every site.
    """

    @abstractmethod
    def partners_of(self, site: Site, sites: Sequence[Site]) -> Sequence[Site]:
        """Those of `sites` that the result at `site` needs; none where it stands alone.

        Asked before any data is read, too, so that a missing partner ends a run at its beginning.

        Raises:
            SiteError: for a partner that is not among `sites`.
        """

    @abstractmethod
    def compute_pairs(
        self, accumulators: Mapping[str, Accumulator], site: Site, partners: Sequence[Partner]
    ) -> Result:
        """The result at one site, given its own accumulators and its partners.

        Raises:
            DataError: where the quantity is undefined.
        """

    def compute_all(self, sites: Sequence[Partner]) -> Mapping[str, Result] | None:
        """The results at all sites by name, where working them out together costs less.

        None, the default, has each worked out by itself. What both ways give has to be the same.

        Args:
            sites: all sites of the run, each with the metric's own accumulators there.

        Raises:
            DataError: where the quantity is undefined; the message names the site.
        """
        return None

    def working_memory(self, batches: Mapping[str, Activations], rows: int | None) -> int:
        """Bytes that `compute_all` takes for a moment, beside the accumulators of all sites.

        Args:
            batches: the first one of each site, without values (on the meta device) and mask.
            rows: rows of the data that will come at most; None where nobody knows.
        """
        return 0


def results_together(
    metric: Metric, sites: Sequence[Site], accumulators: Callable[[str], Mapping[str, Accumulator]]
) -> Mapping[str, Result] | None:
    """The results at all sites of a metric that works them out together; None for others.

    Args:
        metric: the metric.
        sites: all sites of the run.
        accumulators: the metric's accumulators at the site of that name.
    """
    if not isinstance(metric, PairMetric):
        return None
    return metric.compute_all([Partner(site, accumulators(site.name)) for site in sites])


def result_at(
    metric: Metric,
    site: Site,
    sites: Sequence[Site],
    accumulators: Callable[[str], Mapping[str, Accumulator]],
) -> Result:
    """The result of any metric at `site`, one of `sites`.

    Args:
        metric: the metric.
        site: where.
        sites: all sites of the run.
        accumulators: the metric's accumulators at the site of that name.

    Raises:
        DataError: where it is undefined.
        SiteError: for a partner that is not among `sites`.
    """
    partners = metric.partners_of(site, sites) if isinstance(metric, PairMetric) else ()
    if not isinstance(metric, PairMetric) or not partners:
        return metric.compute(accumulators(site.name), site)
    others = [Partner(other, accumulators(other.name)) for other in partners]
    return metric.compute_pairs(accumulators(site.name), site, others)
