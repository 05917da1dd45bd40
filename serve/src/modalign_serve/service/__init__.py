"""The service behind the API: models, feedback, keys, limits, metrics."""
