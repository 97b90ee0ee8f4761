"""Uncertainty methods behind one protocol."""
