"""Differentiable rasterisation of 3D Gaussians: one function, three back ends."""
