"""BANDVAE: interest factors of ratings and texts, aligned by optimal transport."""
