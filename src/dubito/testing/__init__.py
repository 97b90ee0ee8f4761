"""Conformance suites shipped with dubito: test a plug-in by subclassing one of them."""
