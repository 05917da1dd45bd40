"""A trained run to an artifact that `modalign_serve` reads."""
