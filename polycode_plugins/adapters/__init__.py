"""Adapters: from a model to its activations. Here is what one needs to write another.

An adapter names the sites of a model, turns data into batches, and hands over activations while the
model runs; `Adapter` is the contract, and the other names are what it is written with.
"""

from polycode_plugins.activations import Activations, Site
from polycode_plugins.adapters.base import Adapter, Batch, Capture, Sink
from polycode_plugins.adapters.engine import EngineCapture
from polycode_plugins.adapters.inputs import as_batch, device_of, tensor_batches, to_device
from polycode_plugins.adapters.patterns import choose, match, unknown
from polycode_plugins.adapters.undisturbed import modules_of, seed_batch, undisturbed
from polycode_plugins.data_options import DataOptions

__all__ = [
    "Activations",
    "Adapter",
    "Batch",
    "Capture",
    "DataOptions",
    "EngineCapture",
    "Sink",
    "Site",
    "as_batch",
    "choose",
    "device_of",
    "match",
    "modules_of",
    "seed_batch",
    "tensor_batches",
    "to_device",
    "undisturbed",
    "unknown",
]
