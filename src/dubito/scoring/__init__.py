"""Adaptive scoring: the full ensemble only where it could change the decision."""
