"""The service: an artifact, answered over HTTP by a process that has no torch in it."""
