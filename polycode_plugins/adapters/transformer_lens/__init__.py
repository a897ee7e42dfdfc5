"""TransformerLens 2 to 4: hooked models, their sites under both majors' names."""
