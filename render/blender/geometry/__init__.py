"""The surfaces that can be seen at one time, and over time. Runs inside Blender."""
