"""Commands of this package, one a file."""
