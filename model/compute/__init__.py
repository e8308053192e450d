"""What a device is told: precision of weights, recorded steps, determinism."""
