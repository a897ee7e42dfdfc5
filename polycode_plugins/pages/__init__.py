"""Pages: charts, tables and the shell around them. Nothing here knows what is shown."""
