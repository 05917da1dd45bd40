"""A teacher into a small student: plan, sources, losses, runs, and many of them."""
