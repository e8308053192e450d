"""Frozen settings, their checks and presets."""
