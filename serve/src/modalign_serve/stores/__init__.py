"""Feedback events, kept in SQLite or PostgreSQL."""
