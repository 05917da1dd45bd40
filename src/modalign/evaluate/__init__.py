"""modalign.evaluate."""
