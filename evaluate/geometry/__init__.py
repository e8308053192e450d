"""Metrics of geometry: point clouds, surfaces, motion, cameras, agreement between views."""
