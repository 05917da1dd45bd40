"""What users like, from their training items alone: sentences people can read, and vectors."""
