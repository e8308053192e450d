"""Sampling that is guided by a warp of what is known: novel views without training."""
