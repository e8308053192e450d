"""Denoisers and their published checkpoints."""
