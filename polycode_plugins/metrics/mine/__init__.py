"""Mutual information of a layer with its input, its labels or another layer."""
