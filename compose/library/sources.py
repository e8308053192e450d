"""Opening what a user names as a library: a CSV, a dataset, a folder of assets, rows, or several of them."""

from __future__ import annotations

from orbit4d.compose.library.catalogue import open_library

__all__ = ["open_library"]
