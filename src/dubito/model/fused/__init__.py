"""The whole network as generated, compiled C: see ``docs/architecture.md`` and ``c/network.c``."""
