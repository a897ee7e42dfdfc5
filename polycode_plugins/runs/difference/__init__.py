"""Two runs side by side: what differs, by site, with intervals; and how alike their codes are."""

from polycode_plugins.runs.difference.interval import between
from polycode_plugins.runs.difference.run_difference import Difference, RunDifference, diff

__all__ = ["Difference", "RunDifference", "between", "diff"]
