"""How canonical Gaussians move."""
