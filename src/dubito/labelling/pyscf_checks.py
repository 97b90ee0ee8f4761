"""Whether PySCF knows a functional and a basis, asked before anything is spent."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from dubito.core.errors import LabelError, nearest

# Suggested, in this order, where a basis lacks an element; all come with PySCF.
COMMON_BASES = ("def2-svp", "def2-tzvp", "cc-pvdz", "6-31g*", "sto-3g", "lanl2dz", "cc-pvdz-pp", "ano", "dyallv2z")


def check_functional(xc: str) -> None:
    """Raise LabelError when PySCF can't compute energies and gradients with this functional."""
    from pyscf.dft import libxc
    from pyscf.scf.dispersion import parse_disp

    try:
        libxc.parse_xc(xc)
        laplacian, dispersion = libxc.needs_laplacian(xc), parse_disp(xc)[1]
    except (KeyError, ValueError, IndexError, NotImplementedError) as error:
        known = [name for name in (*libxc.XC_ALIAS, *libxc.XC_CODES) if not name.startswith(("LDA_", "GGA_", "MGGA_"))]
        guess = nearest(xc.upper().replace("-", "_"), known)
        hint = f" Did you mean '{guess}'?" if guess else ""
        raise LabelError(
            f"labelling.labeller.xc: PySCF does not know the functional '{xc}' ({_one_line(error)}).{hint} "
            "Names are those of libxc, e.g. PBE, B3LYP, PBE0, wB97X-V, r2SCAN; double hybrids are not available."
        ) from None
    if not xc.strip(" ,"):
        raise LabelError("labelling.labeller.xc is blank; name a functional, e.g. PBE.")
    if laplacian:
        raise LabelError(
            f"labelling.labeller.xc: '{xc}' needs the Laplacian of the density, for which PySCF has no gradients. "
            "Choose another functional, e.g. r2SCAN."
        )
    if dispersion and find_spec("pyscf.dispersion") is None:
        raise LabelError(
            f"labelling.labeller.xc: '{xc}' asks for a dispersion correction, which needs the package "
            f"pyscf-dispersion. Install it (pip install pyscf-dispersion), or leave out '-{dispersion}'."
        )


def check_basis(basis: str, elements: Iterable[str], *, key: str, where: str) -> None:
    """Raise LabelError when a basis is unknown or lacks an element.

    Parameters
    ----------
    elements : chemical symbols
    key : the configuration's key, for the message
    where : the structures the elements come from, for the message
    """
    if not _has(basis, "H") and not _has(basis, "He") and not any(_has(basis, e) for e in elements):
        guess = nearest(_normal(basis), {_normal(n): n for n in _names().values()})
        hint = f" Did you mean '{_names()[guess]}'?" if guess in _names() else ""
        raise LabelError(
            f"labelling.labeller.{key}: PySCF does not know the basis '{basis}'.{hint} "
            f"Common ones: {', '.join(COMMON_BASES[:6])}."
        )
    elements = list(elements)
    missing = [e for e in elements if not _has(basis, e)]
    if missing:
        covering = [b for b in COMMON_BASES if all(_has(b, e) for e in elements)]
        remedy = f"Choose one that has, e.g. {covering[0]}" if covering and key == "basis" else "Choose another"
        raise LabelError(
            f"labelling.labeller.{key}: the basis '{basis}' has no functions for {', '.join(missing)}, "
            f"which {where} contains. {remedy}."
        )


def core_potentials(basis: str, elements: Iterable[str]) -> dict[str, str]:
    """Return the effective core potentials that belong to the basis, by element.

    PySCF does not take them by itself: def2-svp of iodine without its core potential gives nonsense.
    """
    from pyscf.gto.basis import load_ecp

    found = {}
    for element in elements:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if load_ecp(basis, element):
                    found[element] = basis
        except (KeyError, RuntimeError):
            continue
    return found


def _has(basis: str, element: str) -> bool:
    from pyscf.gto.basis import load

    try:
        with warnings.catch_warnings():  # "install basis-set-exchange" is no help to a typing error
            warnings.simplefilter("ignore")
            return bool(load(basis, element))
    except (KeyError, RuntimeError, AssertionError, OSError):
        return False


def _normal(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def _names() -> dict[str, str]:
    """Return the basis sets that come with PySCF: name as people write it, by PySCF's short form."""
    from pyscf.gto.basis import ALIAS

    out: dict[str, Any] = {}
    for short, file in ALIAS.items():
        pretty = short
        if isinstance(file, str) and file.endswith(".dat"):
            stem = file.removesuffix(".dat").rpartition("/")[2]
            if "pople" in file:
                stem = stem.replace("Gss", "G**").replace("Gs", "G*")
            pretty = stem.lower() if _normal(stem) == short else short
        out[short] = pretty
    return out


def _one_line(error: Exception) -> str:
    return " ".join(str(error).strip("'\"").split())
