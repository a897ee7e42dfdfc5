"""How a command line is read: parsers whose help and mistakes help, settings from a file."""
