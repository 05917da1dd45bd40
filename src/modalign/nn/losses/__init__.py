"""modalign.nn.losses."""
