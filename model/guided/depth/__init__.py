"""Depth of images: from files, or from a network."""
