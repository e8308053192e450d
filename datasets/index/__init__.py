"""Which clips there are, and one clip back."""
