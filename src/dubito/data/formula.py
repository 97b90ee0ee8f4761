"""What a structure is made of: the key under which energies and geometries may be compared."""

from __future__ import annotations

import numpy as np

from dubito.data.structures import Structures


def formula_keys(structures: Structures) -> list[str]:
    """Return, per structure, elements with their counts, charge and multiplicity, e.g. ``"1x3 7x1 +0 m1"``.

    Energies of structures with different keys have different zeros, and can't be compared.
    """
    known: dict[bytes, str] = {}
    keys = []
    for i, (start, stop) in enumerate(zip(structures.ptr[:-1], structures.ptr[1:], strict=True)):
        raw = structures.atomic_numbers[start:stop].tobytes()
        if raw not in known:
            z, count = np.unique(structures.atomic_numbers[start:stop], return_counts=True)
            known[raw] = " ".join(f"{a}x{b}" for a, b in zip(z, count, strict=True))
        keys.append(f"{known[raw]} {int(structures.charge[i]):+d} m{int(structures.multiplicity[i])}")
    return keys
