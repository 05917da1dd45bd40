"""modalign.report."""
