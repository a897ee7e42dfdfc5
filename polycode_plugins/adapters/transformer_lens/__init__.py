"""TransformerLens 2 to 4: hooked models, their sites under both majors' names."""

from polycode_plugins.adapters.transformer_lens.adapter import TransformerLensAdapter

__all__ = ["TransformerLensAdapter"]
