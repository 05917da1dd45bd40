"""The encoders, and how they are named."""
