"""Exports that a trainer reads as they are: one file a trainer, and what they share."""
