"""Inspection of untrusted asset files, without Blender."""
