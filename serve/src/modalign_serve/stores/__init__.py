"""Feedback events, stored in SQLite or PostgreSQL."""
