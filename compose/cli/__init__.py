"""Commands that need a model and Gaussians together."""
