"""The certificate: thresholds with a bounded risk, and whether the bound still holds."""
