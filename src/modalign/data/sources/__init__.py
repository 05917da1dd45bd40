"""modalign.data.sources."""
