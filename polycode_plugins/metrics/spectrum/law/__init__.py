"""The power law of a spectrum: its fit, its test, the ranks it holds over."""
