"""Videos in and out, as a player shows them."""
