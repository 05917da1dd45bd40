"""Layers and losses, independent of data sets."""
