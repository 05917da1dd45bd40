"""Interactions, items and modalities: read, prepared, split, stored."""
