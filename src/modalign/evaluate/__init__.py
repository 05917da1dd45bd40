"""Ranking, metrics, and tests of differences."""
