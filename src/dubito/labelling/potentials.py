"""Analytic potentials that stand in for density functional theory in rehearsals and tests.

Each is a smooth function of the positions with its exact gradient, invariant under rotation,
translation, reflection and exchange of equal atoms, and finite wherever no two atoms coincide.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.core.errors import LabelError
from dubito.data.structures import Structures
from dubito.labelling.checks import describe

Array = NDArray[Any]


@dataclass(frozen=True)
class DoubleWellAmmonia:
    """An NH3-like potential with two mirror-image minima behind a barrier.

    ``E = sum_i M(r_i) + W(h^2) + K sum_{i<j} (y_ij - mean y)^2 + sum_{i<j} R(d_ij)`` with r_i the N-H and d_ij
    the H-H distances, h the height of N over the plane of the H atoms and ``y = exp(-d / length)``:

    - ``M(r) = D ((1 - exp(-a (r - r0)))^2 - 1)``, a Morse bond;
    - ``W(h^2) = B ((1 - x) / (1 + c x))^2``, ``x = h^2 / h0^2``: two wells, bounded for large h;
    - the third term keeps the three H atoms alike (it stands for the asymmetric bends);
    - ``R(d) = A (1 - d / d0)^4`` below d0, a repulsion that ends before the equilibrium distance.

    All terms but the bonds are >= 0 and vanish at the minimum (r0, h0), so its energy is exactly -3 D; the planar
    geometry with bonds r0 is stationary by symmetry and exactly B higher. The constants give about the shape of
    ammonia (r0 1.012 Å, h0 0.38 Å, umbrella force constant 8 eV/Å²).
    The height is regularised where the H atoms are nearly collinear (``plane_softening``, Å^4).
    """

    bond_depth: float = 4.6
    bond_stiffness: float = 2.1
    bond_length: float = 1.012
    barrier: float = 0.25
    height: float = 0.38
    well_softening: float = 0.3
    bend: float = 30.0
    bend_length: float = 1.5
    repulsion: float = 200.0
    repulsion_end: float = 1.5
    plane_softening: float = 0.01

    def settings(self) -> dict[str, Any]:
        """Return the constants."""
        return asdict(self)

    def check(self, structures: Structures) -> None:
        """Raise LabelError unless every structure is one isolated N with three H."""
        for i, one in enumerate(structures):
            if sorted(one.atomic_numbers.tolist()) != [1, 1, 1, 7] or one.pbc.any():
                raise LabelError(
                    f"{describe(structures, i)} does not suit the teacher 'double_well_ammonia', which knows one N "
                    "with three H and no cell. Choose data.initial.molecule NH3, or "
                    "labelling.labeller.potential morse."
                )

    def evaluate(self, one: Structures) -> tuple[float, Array, Array | None]:
        """Return energy (eV), forces (n, 3) (eV/Å) and no stress for one structure."""
        center = int(np.argmax(one.atomic_numbers))
        others = [i for i in range(4) if i != center]
        bonds, bond_gradient = self._bonds(one.positions[center], one.positions[others])
        hydrogens, hydrogen_gradient = self._hydrogens(one.positions[others])
        wells, well_gradient = self._wells(one.positions[center], one.positions[others])
        gradient = bond_gradient + well_gradient
        gradient[1:] += hydrogen_gradient
        forces = np.zeros((4, 3))
        forces[[center, *others]] = -gradient
        return bonds + hydrogens + wells, forces, None

    def _bonds(self, n: Array, h: Array) -> tuple[float, Array]:
        """Morse bonds; gradients in the order N, H, H, H."""
        vectors = h - n
        r = np.linalg.norm(vectors, axis=1)
        decay = np.exp(-self.bond_stiffness * (r - self.bond_length))
        energy = self.bond_depth * float(np.sum((1 - decay) ** 2 - 1))
        slope = 2 * self.bond_depth * self.bond_stiffness * (1 - decay) * decay
        on_h = (slope / r)[:, None] * vectors
        return energy, np.vstack([-on_h.sum(axis=0), on_h])

    def _hydrogens(self, h: Array) -> tuple[float, Array]:
        """Likeness and repulsion of the three H-H distances."""
        first, second = np.array([0, 0, 1]), np.array([1, 2, 2])
        vectors = h[second] - h[first]
        d = np.linalg.norm(vectors, axis=1)
        y = np.exp(-d / self.bend_length)
        unlike = y - y.mean()
        gap = np.clip(1 - d / self.repulsion_end, 0, None)
        energy = self.bend * float(unlike @ unlike) + self.repulsion * float(np.sum(gap**4))
        # The mean's own derivative drops out, because the deviations sum to zero.
        slope = -2 * self.bend * unlike * y / self.bend_length - 4 * self.repulsion * gap**3 / self.repulsion_end
        pull = (slope / d)[:, None] * vectors
        gradient = np.zeros((3, 3))
        np.add.at(gradient, second, pull)
        np.add.at(gradient, first, -pull)
        return energy, gradient

    def _wells(self, n: Array, h: Array) -> tuple[float, Array]:
        """Double well in ``h^2 = s^2 / q``, s the scalar triple product and q the softened squared normal."""
        e1, e2, w = h[1] - h[0], h[2] - h[0], n - h[0]
        normal = np.cross(e1, e2)
        s, q = float(normal @ w), float(normal @ normal) + self.plane_softening
        x = s * s / q / self.height**2
        ratio = (1 - x) / (1 + self.well_softening * x)
        slope = -2 * self.barrier * ratio * (1 + self.well_softening) / (1 + self.well_softening * x) ** 2
        by_s, by_q = 2 * s / q / self.height**2, -s * s / q**2 / self.height**2
        on_e1 = by_s * np.cross(e2, w) + by_q * 2 * np.cross(e2, normal)
        on_e2 = by_s * np.cross(w, e1) + by_q * 2 * np.cross(normal, e1)
        on_n = by_s * normal
        gradient = slope * np.array([on_n, -(on_e1 + on_e2 + on_n), on_e1, on_e2])
        return self.barrier * ratio**2, gradient


@dataclass(frozen=True)
class PairwiseMorse:
    """Morse pairs of any elements, bonds as long as the sum of covalent radii, molecules and cells.

    ``E = sum_pairs f(r) D ((1 - exp(-a (r - r0)))^2 - 1)`` with r0 the sum of the covalent radii of
    https://doi.org/10.1039/b801115j and ``f = (1 - (r / r_c)^2)^3``, which takes energy, force and curvature to
    zero at the cutoff. In a cell all images within the cutoff count.
    """

    depth: float = 1.0
    stiffness: float = 1.8
    cutoff: float | None = 6.0

    def settings(self) -> dict[str, Any]:
        """Return the constants."""
        return asdict(self)

    def check(self, structures: Structures) -> None:
        """Raise LabelError for cells without a cutoff or without volume."""
        for i in np.flatnonzero(structures.pbc.any(axis=1)):
            cell = structures.cell[i][structures.pbc[i]]
            if self.cutoff is None or np.linalg.matrix_rank(cell) < len(cell):
                raise LabelError(
                    f"{describe(structures, int(i))} is periodic, but its cell has no extent there (or the teacher "
                    "has no cutoff). Give it proper cell vectors."
                )

    def _shifts(self, one: Structures) -> Array:
        """Return the cell translations that can bring an image within the cutoff, (k, 3) Å."""
        if not one.pbc.any() or self.cutoff is None:
            return np.zeros((1, 3))
        periodic = np.flatnonzero(one.pbc[0])
        cell = one.cell[0][periodic]
        reciprocal = np.linalg.pinv(cell)  # columns: fractional coordinate = position @ column
        # Atoms need not lie inside the cell, so their own spread counts as well.
        spread = np.ptp(one.positions @ reciprocal, axis=0)
        reach = np.ceil(self.cutoff * np.linalg.norm(reciprocal, axis=0) + spread).astype(int)
        grid = np.stack(np.meshgrid(*[np.arange(-k, k + 1) for k in reach], indexing="ij"), axis=-1)
        out: Array = grid.reshape(-1, len(periodic)) @ cell
        return out

    def evaluate(self, one: Structures) -> tuple[float, Array, Array | None]:
        """Return energy (eV), forces (n, 3) (eV/Å) and, with a full cell, stress (6,) (eV/Å³)."""
        from ase.data import covalent_radii

        radii = covalent_radii[one.atomic_numbers]
        vectors = one.positions[None, :, None] - one.positions[:, None, None] + self._shifts(one)
        r = np.linalg.norm(vectors, axis=-1)
        near = (r > 0) & (r < (np.inf if self.cutoff is None else self.cutoff))
        i, j, k = np.nonzero(near)
        r, vectors = r[i, j, k], vectors[i, j, k]
        energy, slope = self._pair(r, radii[i] + radii[j])
        # Every pair is met from both ends; an atom and its own image share the energy the same way.
        pull = (slope / r)[:, None] * vectors
        forces = np.zeros((len(radii), 3))
        np.add.at(forces, i, pull)
        stress = None
        if one.pbc.all():
            virial = 0.5 * vectors.T @ pull / abs(np.linalg.det(one.cell[0]))
            stress = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        return 0.5 * float(energy.sum()), forces, stress

    def _pair(self, r: Array, length: Array) -> tuple[Array, Array]:
        """Return pair energies and their derivatives."""
        decay = np.exp(-self.stiffness * (r - length))
        bare = self.depth * ((1 - decay) ** 2 - 1)
        slope = 2 * self.depth * self.stiffness * (1 - decay) * decay
        if self.cutoff is None:
            return bare, slope
        u = 1 - (r / self.cutoff) ** 2
        return u**3 * bare, u**3 * slope - 6 * u**2 * r / self.cutoff**2 * bare


POTENTIALS: dict[str, type[DoubleWellAmmonia] | type[PairwiseMorse]] = {
    "double_well_ammonia": DoubleWellAmmonia,
    "morse": PairwiseMorse,
}
