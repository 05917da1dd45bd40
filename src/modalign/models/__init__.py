"""The recommenders: a small one is a file, a family is a folder."""
