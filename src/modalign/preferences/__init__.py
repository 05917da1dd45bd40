"""Users' tastes in words, and the vectors made of them."""
