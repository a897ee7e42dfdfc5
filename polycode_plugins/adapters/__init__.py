"""Adapters: from a model to its activations."""
