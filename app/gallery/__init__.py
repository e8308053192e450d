"""The page that the demo ends with."""
