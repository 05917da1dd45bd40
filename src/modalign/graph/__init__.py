"""Sparse graphs of users and items, and products with them: the hot path of graph models."""
