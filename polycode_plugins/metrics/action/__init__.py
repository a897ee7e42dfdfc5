"""How far random projections of a layer move along a path."""
