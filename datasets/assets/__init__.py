"""A look into untrusted asset files, without Blender."""
