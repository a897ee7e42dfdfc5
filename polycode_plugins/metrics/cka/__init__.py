"""Centred kernel alignment: how alike the codes of two sites, models or checkpoints are."""
