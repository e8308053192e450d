"""Training clips, their latents and statistics."""
