"""What runs inside Blender: started by name as a child process, imported by nobody."""
