"""Priors in closed form around a scene that is known: what a run can be proven with, without weights."""
