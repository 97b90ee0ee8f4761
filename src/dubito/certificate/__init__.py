"""The certificate: thresholds with a bounded risk, and whether the bound still holds.

Pure numpy and scipy: scores, errors and counts go in, a statement comes out. See ``docs/certificate.md``.
"""
