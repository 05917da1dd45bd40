"""MMSSL: adversarial and contrastive self-supervision."""
