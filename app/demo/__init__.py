"""The whole chain on built-in assets."""
