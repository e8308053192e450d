"""The grammar of the offline director: from words to noun phrases, clauses and actors."""
