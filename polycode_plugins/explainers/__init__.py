"""Explaining units of a network and scoring the explanations: neurons, projections, directions."""
