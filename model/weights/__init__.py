"""Weight files of others: found, read safely, every key accounted for."""
