"""Read structures from any file and write extended XYZ."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dubito.core.errors import DataError
from dubito.core.files import atomic_path
from dubito.core.logs import get_logger
from dubito.data.ase_io import ascii_bytes, from_ase, to_ase
from dubito.data.npz import read_npz
from dubito.data.store import read_structures
from dubito.data.structures import Structures

__all__ = ["from_ase", "read_any", "to_ase", "write_extxyz"]

log = get_logger(__name__)


def read_any(
    path: Path | str,
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    charge: int = 0,
    multiplicity: int = 1,
    trajectory: str | None = None,
    units: str | None = None,
) -> Structures:
    """Read structures, and their labels if there are any.

    ``.h5`` is dubito's own schema, ``.npz`` rMD17's or sGDML's, ``.xyz`` and ``.extxyz`` extended XYZ
    (also ``.gz``), and all else what ASE makes of it. See :func:`dubito.data.ase_io.from_ase` and
    :func:`dubito.data.npz.read_npz` for keys and units. Counts are logged.

    Parameters
    ----------
    energy_key, forces_key : names of the labels in the file; None: the usual ones
    charge, multiplicity : used where the file gives none
    trajectory : id given to all structures, so that they stay in one split
    units : e.g. ``"kcal/mol, kcal/mol/Angstrom"``; replaces what the file says

    Raises
    ------
    DataError
        When the file is missing, empty, damaged or of an unknown kind, when a named key labels
        nothing, when labels are all zero or NaN, or when a unit is unknown or unstated.
    """
    path = Path(path)
    _refuse_unreadable(path)
    name = path.name.lower()
    keys: dict[str, Any] = {"energy_key": energy_key, "forces_key": forces_key, "units": units}
    if name.endswith((".h5", ".hdf5")):
        _refuse_keys(path, keys)
        structures = read_structures(path)
        log.info("%s: %d structures, %d of them labelled", path, len(structures), int(structures.is_labelled.sum()))
    elif name.endswith(".npz"):
        structures = read_npz(path, charge=charge, multiplicity=multiplicity, **keys)
        source = [ascii_bytes(path.name, 52) + f"[{i}]".encode() for i in range(len(structures))]
        structures = structures.with_columns(origin__source=source)
    else:
        structures = from_ase(
            _images(path),
            charge=charge,
            multiplicity=multiplicity,
            source=path.name,
            where=str(path),
            trajectory=trajectory,
            **keys,
        )
    if not len(structures):
        raise DataError(f"{path} holds no structures.")
    if trajectory is not None:
        structures = structures.with_columns(origin__trajectory=ascii_bytes(trajectory, 48))
    return structures


def write_extxyz(path: Path | str, structures: Structures) -> None:
    """Write extended XYZ (positions to 8 decimals), compressed if the name ends with ``.gz``.

    Labels are written as ``REF_energy`` (eV) and ``REF_forces`` (eV/Å), which survive a round trip
    through ASE; unlabelled structures have neither.
    """
    import ase.io

    text = io.StringIO()
    if len(structures):
        ase.io.write(text, to_ase(structures), format="extxyz")
    data = text.getvalue().encode()
    with atomic_path(Path(path)) as partial:
        # No time stamp: equal structures give equal bytes.
        partial.write_bytes(gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)


def _refuse_unreadable(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path} does not exist. Name a structure file (extxyz, npz, h5 or what ASE reads).")
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the structure file in it.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty. Fetch or write it again.")


def _refuse_keys(path: Path, keys: Mapping[str, Any]) -> None:
    given = sorted(key for key, value in keys.items() if value is not None)
    if given:
        raise DataError(
            f"{path} is a dubito file, whose labels have fixed names and units; {', '.join(given)} can't be "
            "given for it. Leave that out."
        )


def _images(path: Path) -> list[Any]:
    """Return all Atoms of a file."""
    import ase.io
    from ase.io.formats import UnknownFileTypeError

    stem, opener = path.name.lower(), None
    for ending, opened in (("gz", gzip.open), ("bz2", bz2.open), ("xz", lzma.open)):
        if stem.endswith(f".{ending}"):
            stem, opener = stem.removesuffix(f".{ending}"), opened
    kind = "extxyz" if stem.endswith((".xyz", ".extxyz")) else None
    try:
        if kind is not None and opener is not None:
            # Unpacked first: ASE seeks back and forth in the packed file, which is 20 times slower.
            with opener(path, "rt", encoding="utf-8") as file:
                images = ase.io.read(io.StringIO(file.read()), index=":", format=kind)
        else:
            images = ase.io.read(path, index=":", format=kind)
    except UnknownFileTypeError as error:
        raise DataError(
            f"{path}: ASE does not know this kind of file ({error}). "
            "Use extended XYZ (.xyz), .npz, dubito's .h5, or a format of https://ase-lib.org."
        ) from None
    except Exception as error:  # ASE's readers raise whatever comes
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{path} can't be read as a structure file ({detail}). It is damaged or not of the kind its name "
            "says; open it, or write it again."
        ) from error
    found = images if isinstance(images, list) else [images]
    if any(not np.isfinite(a.positions).all() for a in found):
        bad = next(i for i, a in enumerate(found) if not np.isfinite(a.positions).all())
        raise DataError(f"{path}: structure {bad} has positions that are not finite numbers. Remove it.")
    return found
