"""Materials as files mean them: repairs, colours, what is seen through. Runs inside Blender."""
