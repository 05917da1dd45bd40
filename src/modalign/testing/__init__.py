"""The contract that every registered model is held to, and toy data for it."""
