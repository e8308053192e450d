"""Captures of several cameras as others store them: one reader per layout, and how a folder's is found."""
