"""Files: atomic writes and locks, what made a run, and looking at what others wrote."""
