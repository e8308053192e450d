"""Formats that are read and never written here, or read by more than one moment."""
