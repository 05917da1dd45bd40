"""Ranking all items, measuring the lists, and telling whether one run beats another."""
