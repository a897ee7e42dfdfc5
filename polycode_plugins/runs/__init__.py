"""Runs: who runs the model differs, what is gathered and how it is kept does not."""
