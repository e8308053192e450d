"""Which latent channels take part in WorldForge's fusion: those whose motion it does not upset."""
