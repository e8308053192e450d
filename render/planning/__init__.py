"""What is rendered, decided from numbers alone: no Blender, no Ray."""
