"""A local page on which people look at clips and label them: `orbit4d review`."""
