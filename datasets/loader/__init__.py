"""The torch dataset, its batches and its order."""
