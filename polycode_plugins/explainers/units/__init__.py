"""Units: what is explained. Neurons, projections, components, directions, random weights."""
