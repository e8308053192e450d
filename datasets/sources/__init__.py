"""From what the user names to assets: files, folders, lists, tables, Objaverse."""
