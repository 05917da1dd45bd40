"""modalign.graph."""
