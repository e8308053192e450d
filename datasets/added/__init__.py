"""Passes that lie beside a dataset's clips, in shards and index parts of their own."""
