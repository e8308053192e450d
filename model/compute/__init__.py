"""Settings of a device: precision of weights, recorded steps, determinism."""
