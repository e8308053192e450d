"""Commands of curation beside `curate` itself."""
