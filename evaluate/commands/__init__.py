"""Commands of `orbit4d eval` that need neither Ray nor rendered-on-demand truth."""
