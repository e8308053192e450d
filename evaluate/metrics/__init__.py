"""Metrics, their kernels and learned networks."""
