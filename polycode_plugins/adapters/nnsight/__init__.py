"""nnsight: traced models, local and remote."""

from polycode_plugins.adapters.nnsight.adapter import NNsightAdapter

__all__ = ["NNsightAdapter"]
