"""The surfaces that can be seen at a moment, and over time. Runs inside Blender."""
