"""Lists of items from an artifact, with numpy alone."""
