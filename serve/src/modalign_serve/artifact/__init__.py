"""The format of what is served: written, read, checked."""
