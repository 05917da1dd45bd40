"""modalign."""
