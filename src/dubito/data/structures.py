"""Many structures as flat arrays: the boundary object between all parts.

Atoms of all structures are concatenated; structure ``i`` owns the atoms ``ptr[i]:ptr[i + 1]``.
Names, shapes and units are those of :mod:`dubito.core.fields`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.core.errors import DataError
from dubito.core.fields import GEOMETRY, LABELS, ORIGIN, PROVENANCE, SCORING, Field
from dubito.core.hashing import structure_id

Array = NDArray[Any]

REFERENCE = "reference"
MODEL = "model"

_DEFAULTS: dict[str, Any] = {
    "labels/energy": np.nan,
    "labels/forces": np.nan,
    "labels/stress": np.nan,
    "origin/iteration": -1,
    "provenance/wall_time": np.nan,
    # What has no such column was predicted with all members.
    "scoring/escalated": True,
    "multiplicity": 1,
}
_COLUMNS = {f.path: f for f in LABELS + ORIGIN + PROVENANCE + SCORING}


@dataclass(frozen=True)
class Structures:
    """``n`` structures with ``N`` atoms in all.

    Attributes
    ----------
    ptr : (n + 1,) int64
    atomic_numbers : (N,) uint8
    positions : (N, 3) float64, Å
    cell : (n, 3, 3) float64, Å, vectors as rows; zeros without a cell
    pbc : (n, 3) bool
    charge, multiplicity : (n,) int32
    columns : label, origin and provenance arrays by field path, e.g. ``"labels/energy"``;
        absent columns read as their default (NaN, empty, -1, unlabelled).
    """

    ptr: Array
    atomic_numbers: Array
    positions: Array
    cell: Array
    pbc: Array
    charge: Array
    multiplicity: Array
    columns: dict[str, Array]

    # --- making -------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        numbers: Sequence[ArrayLike],
        positions: Sequence[ArrayLike],
        *,
        cell: ArrayLike | None = None,
        pbc: ArrayLike | None = None,
        charge: ArrayLike = 0,
        multiplicity: ArrayLike = 1,
        **columns: ArrayLike,
    ) -> Self:
        """Make structures from per-structure lists of atomic numbers and positions.

        Columns are given by field path with ``/`` written ``__``, e.g. ``labels__energy=…``.

        Raises
        ------
        DataError
            When lengths disagree, numbers are out of range or positions are not finite.
        """
        n = len(numbers)
        if len(positions) != n:
            raise DataError(f"{n} lists of atomic numbers but {len(positions)} of positions.")
        sizes = [len(np.atleast_1d(z)) for z in numbers]
        flat = np.concatenate([np.asarray(p, "f8").reshape(-1, 3) for p in positions]) if n else np.zeros((0, 3))
        z = np.concatenate([np.atleast_1d(z) for z in numbers]) if n else np.zeros(0, int)
        out = cls(
            ptr=np.concatenate([[0], np.cumsum(sizes)]).astype("i8"),
            atomic_numbers=z.astype("u1"),
            positions=flat,
            cell=np.zeros((n, 3, 3)) if cell is None else np.broadcast_to(np.asarray(cell, "f8"), (n, 3, 3)).copy(),
            pbc=np.zeros((n, 3), bool) if pbc is None else np.broadcast_to(np.asarray(pbc, bool), (n, 3)).copy(),
            charge=np.broadcast_to(np.asarray(charge, "i4"), (n,)).copy(),
            multiplicity=np.broadcast_to(np.asarray(multiplicity, "i4"), (n,)).copy(),
            columns={},
        )
        if np.any(z < 1) or np.any(z > 118):
            raise DataError("Atomic numbers must lie between 1 and 118.")
        return out.with_columns(**columns)

    @classmethod
    def empty(cls) -> Self:
        """Return no structures."""
        return cls.build([], [])

    def __post_init__(self) -> None:
        n_atoms = int(self.ptr[-1])
        if self.atomic_numbers.shape != (n_atoms,) or self.positions.shape != (n_atoms, 3):
            raise DataError(
                f"ptr says {n_atoms} atoms, but atomic_numbers has shape {self.atomic_numbers.shape} "
                f"and positions {self.positions.shape}."
            )
        if np.any(np.diff(self.ptr) < 1):
            raise DataError(f"Structure {int(np.argmax(np.diff(self.ptr) < 1))} has no atoms. Leave it out.")
        if not np.all(np.isfinite(self.positions)):
            bad = int(np.searchsorted(self.ptr, np.argwhere(~np.isfinite(self.positions))[0, 0], "right") - 1)
            raise DataError(f"Structure {bad} has positions that are not finite numbers.")

    def with_columns(self, **columns: ArrayLike) -> Self:
        """Return a copy with columns set; ``labels__energy`` names ``labels/energy``. Scalars are broadcast."""
        merged = dict(self.columns)
        for key, value in columns.items():
            path = key.replace("__", "/")
            if path not in _COLUMNS:
                raise DataError(f"'{path}' is not a column of a structures file.")
            field = _COLUMNS[path]
            array = np.asarray(value, dtype="S" if field.dtype.startswith("S") else None)
            shape = (self._rows(field), *field.shape)
            if array.ndim and array.shape != shape:
                raise DataError(f"{path} has shape {array.shape}, expected {shape}.")
            merged[path] = np.broadcast_to(array, shape).astype(field.dtype)
        return replace(self, columns=merged)

    @classmethod
    def concatenate(cls, parts: Sequence[Structures]) -> Self:
        """Join structures; a column missing in one part gets its default there."""
        parts = [p for p in parts if len(p)]
        if not parts:
            return cls.empty()
        paths = {path for p in parts for path in p.columns}
        sizes = np.concatenate([np.diff(p.ptr) for p in parts])
        joined = {f.path: np.concatenate([getattr(p, f.path) for p in parts]) for f in GEOMETRY}
        return cls(
            ptr=np.concatenate([[0], np.cumsum(sizes)]).astype("i8"),
            columns={path: np.concatenate([p.column(path) for p in parts]) for path in sorted(paths)},
            **joined,
        )

    # --- reading ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def __iter__(self) -> Iterator[Structures]:
        for i in range(len(self)):
            yield self[i]

    def __getitem__(self, index: int | slice | ArrayLike) -> Self:
        """Select structures by index, slice, index array or boolean mask."""
        chosen: Any = index
        rows = np.atleast_1d(np.arange(len(self))[chosen])
        atoms = (
            np.concatenate([np.arange(self.ptr[i], self.ptr[i + 1]) for i in rows]) if len(rows) else np.zeros(0, int)
        )
        take = {"structure": rows, "atom": atoms}
        return replace(
            self,
            ptr=np.concatenate([[0], np.cumsum(self.n_atoms[rows])]).astype("i8"),
            columns={path: a[take[_COLUMNS[path].level]] for path, a in self.columns.items()},
            **{f.path: getattr(self, f.path)[take[f.level]] for f in GEOMETRY},
        )

    def _rows(self, field: Field) -> int:
        return len(self) if field.level == "structure" else int(self.ptr[-1])

    def column(self, path: str) -> Array:
        """Return a column, or its default when it is absent."""
        if path not in self.columns:
            field = _COLUMNS[path]
            default = _DEFAULTS.get(path, b"" if field.dtype.startswith("S") else 0)
            return np.full((self._rows(field), *field.shape), default, dtype=field.dtype)
        return self.columns[path]

    def text(self, path: str) -> list[str]:
        """Return a text column as strings."""
        return [bytes(value).decode() for value in self.column(path)]

    @cached_property
    def n_atoms(self) -> Array:
        """Atoms of each structure, (n,) int64."""
        return np.diff(self.ptr)

    @cached_property
    def structure_of_atom(self) -> Array:
        """Index of the structure of each atom, (N,) int64."""
        return np.repeat(np.arange(len(self)), self.n_atoms)

    @cached_property
    def ids(self) -> list[str]:
        """Content id of each structure (exact geometry)."""
        return [
            structure_id(
                self.atomic_numbers[a:b], self.positions[a:b], self.cell[i], self.pbc[i],
                int(self.charge[i]), int(self.multiplicity[i]),
            )
            for i, (a, b) in enumerate(zip(self.ptr[:-1], self.ptr[1:], strict=True))
        ]  # fmt: skip

    @property
    def energy(self) -> Array:
        """Labelled total energies, (n,) eV; NaN where unlabelled."""
        return self.column("labels/energy")

    @property
    def forces(self) -> Array:
        """Labelled forces, (N, 3) eV/Å; NaN where unlabelled."""
        return self.column("labels/forces")

    @property
    def is_labelled(self) -> Array:
        """Whether each structure is labelled, (n,) bool."""
        return self.column("labels/mask")

    def require_labels(self, where: str) -> None:
        """Raise DataError unless every structure is labelled with finite energy and forces."""
        missing = int((~self.is_labelled).sum())
        if missing or not len(self):
            raise DataError(
                f"{where} holds {len(self)} structures, of which {missing} have no label; all need one. "
                "Label them first, or name the keys under which the file keeps its energies and forces."
            )
        if not (np.all(np.isfinite(self.energy)) and np.all(np.isfinite(self.forces))):
            raise DataError(f"{where} holds labels that are not finite numbers; such labels can't be trained on.")

    def refuse_model_labels(self, where: str) -> None:
        """Raise DataError when a label was made by a model rather than computed."""
        made = sum(kind == MODEL for kind in self.text("provenance/kind"))
        if made:
            raise DataError(
                f"{made} of {len(self)} labels in {where} were made by a model (provenance kind 'model'), expected "
                "reference labels: a model trained on its own predictions grows confident without growing right. Use a "
                "labeller that computes, or set data.allow_model_labels to true if that is what you want."
            )
