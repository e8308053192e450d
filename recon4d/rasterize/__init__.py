"""Differentiable rasterisation of 3D Gaussians: one function, three back ends."""

from orbit4d.recon4d.rasterize.api import rasterize

__all__ = ["rasterize"]
