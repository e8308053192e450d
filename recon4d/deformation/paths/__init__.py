"""Smooth paths of control nodes: the field of one orbit beside a static one."""
