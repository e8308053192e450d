"""Cameras and orbits: pure geometry, and the files that describe them."""
