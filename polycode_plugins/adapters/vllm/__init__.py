"""The `vllm` adapter: statistics gathered inside an engine, where activations never leave it."""

from polycode_plugins.adapters.vllm.adapter import VLLMAdapter
from polycode_plugins.adapters.vllm.loading import EXTENSION

__all__ = ["EXTENSION", "VLLMAdapter"]
