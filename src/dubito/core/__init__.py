"""Lowest layer: units, fields, errors, seeds, logs, progress, hashes and safe files."""
