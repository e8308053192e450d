"""The dataset on disk and its commit protocol."""
