"""The command line, the server process, and a benchmark of it."""
