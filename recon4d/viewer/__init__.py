"""Scenes and clips in the browser."""
