"""Geometry as others read it: one module per family of formats. Each turns actions into named files."""
