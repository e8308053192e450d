"""The commands of composition, one file each."""
