"""Blender's importers, and what they leave out, format by format. Runs inside Blender."""
