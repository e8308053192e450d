"""Between pixels, words and vectors."""
