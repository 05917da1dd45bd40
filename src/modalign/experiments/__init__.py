"""One training run: how it is made, stored, loaded, and what it costs."""
