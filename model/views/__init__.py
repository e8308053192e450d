"""Training on synchronised views of scenes: which scenes, which of their cameras, and the loss."""
