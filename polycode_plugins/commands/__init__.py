"""The command `polycode`: one module for each of its commands."""
