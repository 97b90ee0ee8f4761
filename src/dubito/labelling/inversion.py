"""The path of an atom through the plane of its three neighbours (ammonia's umbrella)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.config.evaluation import InversionProfile
from dubito.core.errors import ConfigError
from dubito.data.structures import Structures
from dubito.labelling.checks import symbols

Array = NDArray[Any]

BONDED_FACTOR = 1.3
"""Neighbours are closer than this times the sum of covalent radii."""
MIN_HEIGHT_ANGSTROM = 0.05
"""An atom nearer to the plane than this at the minimum has no inversion to speak of."""
OVERSHOOT = 1.2
"""The path ends at this times the minimum's height."""
_MIRROR = np.array([1.0, 1.0, -1.0])


@dataclass(frozen=True)
class Umbrella:
    """A molecule in the frame of its umbrella: neighbours in the plane z = 0, the centre above the origin.

    Attributes
    ----------
    height : of the centre over the plane, Å, >= 0
    bonds : (3,) distances from the centre to its neighbours, Å
    azimuths : (3,) of the neighbours, rad, the first 0, increasing
    positions : (n, 3) of all atoms in that frame, Å
    """

    height: float
    bonds: Array
    azimuths: Array
    positions: Array


def require_fit(structure: Structures, profile: InversionProfile) -> None:
    """Raise ConfigError unless the molecule has the profile's centre, bonded to its three neighbours."""
    where = f"evaluation.profiles: '{profile.name}'"
    remedy = "Set center_atom and plane_atoms to an atom and its three neighbours, or set evaluation.profiles to []."
    n, indices = len(structure.atomic_numbers), [profile.center_atom, *profile.plane_atoms]
    if max(indices) >= n:
        raise ConfigError(f"{where} names atom {max(indices)}, but the molecule has the atoms 0 to {n - 1}. {remedy}")
    if len(set(indices)) < 4:
        raise ConfigError(f"{where} names atom {profile.center_atom} both as center_atom and in plane_atoms. {remedy}")
    if structure.pbc.any():
        raise ConfigError(f"{where} is for molecules, but the initial structure is periodic. {remedy}")
    from ase.data import covalent_radii

    names, radii = symbols(structure.atomic_numbers), covalent_radii[structure.atomic_numbers]
    center = profile.center_atom
    for i in profile.plane_atoms:
        distance = float(np.linalg.norm(structure.positions[i] - structure.positions[center]))
        if distance > BONDED_FACTOR * (radii[i] + radii[center]):
            raise ConfigError(
                f"{where}: atom {i} ({names[i]}) is {distance:.2f} Å from atom {center} ({names[center]}) and thus not "
                f"its neighbour. {remedy}"
            )


def normal_of(positions: Array, profile: InversionProfile) -> Array:
    """Return the unit normal of the neighbours' plane, (3,).

    Raises
    ------
    ConfigError
        When the three are on a line.
    """
    a, b, c = positions[profile.plane_atoms]
    normal: Array = np.cross(b - a, c - a)
    length = float(np.linalg.norm(normal))
    if length < 1e-3:
        raise ConfigError(
            f"evaluation.profiles: '{profile.name}': the plane_atoms {profile.plane_atoms} lie on a line and span "
            "no plane. Name three others, or set evaluation.profiles to []."
        )
    return normal / length


def height_of(positions: Array, profile: InversionProfile) -> float:
    """Return the signed height of the centre over its neighbours' plane, Å."""
    normal = normal_of(positions, profile)
    return float((positions[profile.center_atom] - positions[profile.plane_atoms[0]]) @ normal)


def umbrella_of(positions: Array, profile: InversionProfile) -> Umbrella:
    """Express a geometry in the frame of its umbrella."""
    z, height = normal_of(positions, profile), height_of(positions, profile)
    if height < -1e-6:  # not by rounding alone: that would mirror the other atoms of a planar umbrella
        # Mirrored rather than turned upside down, so that the order of the neighbours stays the same.
        positions = positions - 2 * np.outer((positions - positions[profile.plane_atoms[0]]) @ z, z)
        height = -height
    foot = positions[profile.center_atom] - height * z
    first = positions[profile.plane_atoms[0]] - foot
    x = first / np.linalg.norm(first)
    local = (positions - foot) @ np.array([x, np.cross(z, x), z]).T
    plane = local[profile.plane_atoms]
    azimuths = np.mod(np.arctan2(plane[:, 1], plane[:, 0]), 2 * np.pi)
    azimuths[0] = 0.0
    bonds = np.linalg.norm(plane - local[profile.center_atom], axis=1)
    return Umbrella(height=height, bonds=bonds, azimuths=azimuths, positions=local)


def heights(minimum: float, n_points: int) -> Array:
    """Return the path's heights >= 0 in Å, ascending: 0 and the minimum's are among them.

    ``n_points`` counts both sides and is made odd; about a sixth lie beyond the minimum, up to 1.2 times it.
    """
    m = n_points // 2
    beyond = 0 if m < 2 else max(1, round(m * (OVERSHOOT - 1) / OVERSHOOT))
    inner = np.linspace(0.0, 1.0, m - beyond + 1)
    outer = np.linspace(1.0, OVERSHOOT, beyond + 1)[1:]
    out: Array = minimum * np.concatenate([inner, outer])
    return out


def geometry_at(height: float, minimum: Umbrella, planar: Umbrella, profile: InversionProfile) -> Array:
    """Return the positions (n, 3) in Å at one height of the path.

    Bond lengths and azimuths go linearly with the height from the planar geometry to the minimum, and on beyond;
    other atoms go linearly in the umbrella's frame, carried by the neighbour they are closest to.
    """
    t = height / minimum.height
    bonds = planar.bonds + t * (minimum.bonds - planar.bonds)
    turn = np.mod(minimum.azimuths - planar.azimuths + np.pi, 2 * np.pi) - np.pi  # the short way round
    azimuths = planar.azimuths + t * turn
    radius = np.sqrt(np.maximum(bonds**2 - height**2, 1e-6))
    linear = planar.positions + t * (minimum.positions - planar.positions)
    out = linear.copy()
    out[profile.center_atom] = (0.0, 0.0, height)
    out[profile.plane_atoms] = np.stack([radius * np.cos(azimuths), radius * np.sin(azimuths), 0 * radius], axis=1)
    shift = out - linear
    for i in set(range(len(out))) - {profile.center_atom, *profile.plane_atoms}:
        gaps = np.linalg.norm(minimum.positions[profile.plane_atoms] - minimum.positions[i], axis=1)
        out[i] += shift[profile.plane_atoms[int(np.argmin(gaps))]]
    return out


def flattened(minimum: Umbrella, profile: InversionProfile) -> Umbrella:
    """Return the umbrella with its centre in the plane, bonds and azimuths unchanged."""
    flat = replace(minimum, height=0.0)
    positions = geometry_at(0.0, minimum, flat, profile)
    return replace(flat, positions=positions)


def mirrored(vectors: Array) -> Array:
    """Reflect positions or forces (n, 3) of the umbrella's frame in its plane."""
    out: Array = vectors * _MIRROR
    return out
