"""modalign.testing."""
