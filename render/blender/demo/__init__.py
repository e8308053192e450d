"""The built-in assets. Runs inside Blender."""
