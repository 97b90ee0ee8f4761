"""Structures in arrays: storage, formats, splits, neighbours, batches, statistics."""
