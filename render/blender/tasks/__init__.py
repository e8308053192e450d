"""What the wire may name. Runs inside Blender."""
