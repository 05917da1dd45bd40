"""Layers and losses that know no data set."""
