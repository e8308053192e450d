"""Blender's scene: light, views, previews, passes. Runs inside Blender."""
