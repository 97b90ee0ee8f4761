"""e3nn's constants as a small file, so that no job pays for importing e3nn (about as long as torch itself).

Regenerate with ``python -m dubito.model.tables``; a test compares the file with e3nn.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.errors import ModelError

Array = NDArray[Any]
PATH = Path(__file__).with_name("tables.npz")
L_MAX = 4


def monomials(l_max: int) -> list[tuple[int, int, int]]:
    """Return the exponents of all monomials of x, y, z up to degree ``l_max``, degree by degree."""
    return [
        (a, b, degree - a - b)
        for degree in range(l_max + 1)
        for a in range(degree, -1, -1)
        for b in range(degree - a, -1, -1)
    ]


@lru_cache(maxsize=1)
def _load() -> dict[str, Array]:
    with np.load(PATH, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _get(name: str) -> Array:
    tables = _load()
    if name not in tables:
        raise ModelError(f"There is no table '{name}': harmonics go up to degree {L_MAX}. Lower model.l_max.")
    return tables[name]


def harmonic_coefficients(degree: int) -> Array:
    """Return e3nn's harmonics of one degree as polynomials, (2 degree + 1, monomials of that degree) float64.

    Component normalisation: the squares of the values sum to 2 degree + 1 on the unit sphere.
    """
    return _get(f"harmonics_{degree}")


def wigner_3j(l1: int, l2: int, l3: int) -> Array:
    """Return e3nn's real Wigner 3j symbols, (2 l1 + 1, 2 l2 + 1, 2 l3 + 1) float64, of unit norm."""
    return _get(f"wigner_{l1}_{l2}_{l3}")


def generate(path: Path = PATH) -> None:
    """Write the file from e3nn.

    Each harmonic of degree l is a homogeneous polynomial of degree l, so that its coefficients follow
    (to rounding) from its values at more points than there are monomials.
    """
    import torch
    from e3nn import o3

    points = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 3)))
    tables: dict[str, Array] = {}
    for degree in range(L_MAX + 1):
        exponents = [e for e in monomials(degree) if sum(e) == degree]
        values = torch.stack([points[:, 0] ** a * points[:, 1] ** b * points[:, 2] ** c for a, b, c in exponents], 1)
        target = o3.spherical_harmonics(degree, points, normalize=False, normalization="component")
        solution = torch.linalg.lstsq(values, target).solution.T.numpy()
        tables[f"harmonics_{degree}"] = np.where(np.abs(solution) < 1e-12, 0.0, solution)
    degrees = range(L_MAX + 1)
    for l1 in degrees:
        for l2 in degrees:
            for l3 in degrees:
                if abs(l1 - l2) <= l3 <= l1 + l2:
                    w3j = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).numpy()
                    tables[f"wigner_{l1}_{l2}_{l3}"] = np.where(np.abs(w3j) < 1e-14, 0.0, w3j)
    np.savez_compressed(path, **tables)  # type: ignore[arg-type]


if __name__ == "__main__":
    generate()
