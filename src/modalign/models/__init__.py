"""modalign.models."""
