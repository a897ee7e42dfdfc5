"""`python -m polycode_plugins` is the command `polycode`; torchrun starts it this way."""

import sys

from polycode_plugins.commands.main import program

sys.exit(program())
