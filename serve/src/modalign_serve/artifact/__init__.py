"""The format of an artifact: written, read, checked."""
