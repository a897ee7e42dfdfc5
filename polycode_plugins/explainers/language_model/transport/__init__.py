"""Asking: a request, where it goes, what it may cost, and the store that keeps its answer."""
