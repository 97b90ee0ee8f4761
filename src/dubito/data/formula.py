"""What a structure is made of: the key under which energies and geometries may be compared."""

from __future__ import annotations

import numpy as np

from dubito.data.structures import Structures


def formula_keys(structures: Structures) -> list[str]:
    """Return, per structure, formula, charge and multiplicity, e.g. ``"H3N"`` or ``"H4N charge +1 multiplicity 2"``.

    Charge 0 and multiplicity 1 are left out.
    Energies of structures with different keys have different zeros, and can't be compared.
    """
    from ase.data import chemical_symbols

    known: dict[bytes, str] = {}
    keys = []
    for i, (start, stop) in enumerate(zip(structures.ptr[:-1], structures.ptr[1:], strict=True)):
        raw = structures.atomic_numbers[start:stop].tobytes()
        if raw not in known:
            z, count = np.unique(structures.atomic_numbers[start:stop], return_counts=True)
            known[raw] = "".join(f"{chemical_symbols[a]}{b if b > 1 else ''}" for a, b in zip(z, count, strict=True))
        charge, multiplicity = int(structures.charge[i]), int(structures.multiplicity[i])
        spin = f" multiplicity {multiplicity}" if multiplicity != 1 else ""
        keys.append(known[raw] + (f" charge {charge:+d}" if charge else "") + spin)
    return keys
