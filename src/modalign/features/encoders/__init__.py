"""modalign.features.encoders."""
