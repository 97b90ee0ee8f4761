"""Seeds. Every random choice follows from the campaign's seed and the name of what is chosen."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, *scope: str | int) -> int:
    """Derive a 63-bit seed from the campaign's seed and a scope such as ``("member", 3)``.

    Scopes are hashed, so adding a consumer never shifts the numbers of another.
    """
    text = "/".join(str(s) for s in (seed, *scope))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *scope: str | int) -> np.random.Generator:
    """Return a numpy generator for one scope."""
    return np.random.default_rng(seed_for(seed, *scope))
