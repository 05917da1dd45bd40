"""Graphs of users and items: built, normalised, propagated over."""
