"""Data: vocabularies, interactions, the prepared folder, sources, filters, splits, sampling."""
