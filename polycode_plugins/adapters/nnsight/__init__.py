"""nnsight: traced models, local and remote."""
