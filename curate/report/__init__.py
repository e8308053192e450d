"""The report of a curated table: one page, no server."""
