"""The page on which people see what is recommended, and why."""
