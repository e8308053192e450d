"""Which priors a run asks, and the known scenes that stand in for learned ones."""
