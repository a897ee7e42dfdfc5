"""transformers: every architecture of Hugging Face's library, by folder or live."""

from polycode_plugins.adapters.transformers.adapter import TransformersAdapter

__all__ = ["TransformersAdapter"]
