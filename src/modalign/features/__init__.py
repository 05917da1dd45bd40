"""modalign.features."""
