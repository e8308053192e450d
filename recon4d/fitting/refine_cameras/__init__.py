"""Cameras that are wrong, refined: the orbit by silhouettes, then free poses."""
