"""Learned priors as published: read part by part from a folder or the hub, asked one branch at a time."""
