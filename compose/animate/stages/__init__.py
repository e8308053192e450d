"""The three stages, and what their steps share."""
