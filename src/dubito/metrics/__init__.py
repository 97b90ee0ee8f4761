"""Measures of error, ranking and calibration: pure numpy, each with its reference."""
