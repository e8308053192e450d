"""The pipeline and what leads into it."""
