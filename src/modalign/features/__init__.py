"""Feature vectors to better ones: filled, reduced, averaged, coded."""
