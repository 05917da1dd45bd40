"""Numeric treatment of feature matrices: filled, reduced, averaged, turned into bags."""
