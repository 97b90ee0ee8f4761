"""Selectors: which candidates are worth a label."""
