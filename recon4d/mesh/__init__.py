"""A textured mesh from a scene's Gaussians, moved by its control nodes as bones."""
