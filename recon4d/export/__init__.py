"""A scene in the formats of others."""
