"""Settings, losses and the two-stage optimiser."""
