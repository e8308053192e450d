"""Video diffusion models behind one face, for guided sampling."""
