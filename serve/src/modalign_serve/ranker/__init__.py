"""Lists from an artifact, with numpy alone."""
