"""Assets in, dataset out."""
