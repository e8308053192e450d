"""The camera of a film: what holds a set of boxes, from where, and for how long."""
