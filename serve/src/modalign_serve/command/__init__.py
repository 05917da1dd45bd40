"""The process: its command line, its start and end, its benchmark."""
