"""What is evaluated against what."""
