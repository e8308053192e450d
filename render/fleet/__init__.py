"""Jobs over Ray actors, each with a Blender child of its own."""
