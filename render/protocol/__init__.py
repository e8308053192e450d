"""What driver and Blender child say to each other."""
