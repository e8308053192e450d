"""Geometry beside clips: tracked surfaces of an action, and what follows from them for each frame."""
