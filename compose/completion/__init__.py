"""Views that nothing saw: a model's guess, pulled towards what is known."""
