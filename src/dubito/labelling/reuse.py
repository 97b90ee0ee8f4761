"""Labels of earlier datasets (``labelling.reuse_from``): the same structure under the same settings costs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dubito.core.errors import DataError
from dubito.core.logs import get_logger
from dubito.data.structures import MODEL, REFERENCE, Array, Structures
from dubito.labelling.base import Label, Labeller
from dubito.labelling.cache import LabelCache

log = get_logger(__name__)


@dataclass(frozen=True)
class Offer:
    """What files have for one labeller.

    Attributes
    ----------
    labels : by id, of those structures that were asked for
    fitting : how many labels of the files are of the labeller's settings
    passed_over : labels that are not, counted by why
    """

    labels: dict[str, Label]
    fitting: int
    passed_over: Counter[str]

    def said(self) -> str:
        """Return it in words."""
        text = f"labelling.reuse_from: {self.fitting} labels fit"
        if self.passed_over:
            each = ", ".join(f"{count} {why}" for why, count in self.passed_over.most_common())
            text += f", {self.passed_over.total()} are passed over ({each})"
        return text


def offer(files: Sequence[str], labeller: Labeller, wanted: Iterable[str] = ()) -> Offer:
    """Read the labels of ``files`` that are interchangeable with those of ``labeller``.

    A label fits when the file says that it was computed (kind reference) under the same settings (their hash),
    and is finite. Of several labels of one structure the first counts.

    Parameters
    ----------
    wanted : ids of the structures to return labels of

    Raises
    ------
    DataError
        When a file can't be read, or is not one of dubito's.
    """
    labels: dict[str, Label] = {}
    passed_over: Counter[str] = Counter()
    fitting, names = 0, set(wanted)
    for file in files:
        found = _read(file)
        fits, reasons = _fitting(found, labeller)
        passed_over += reasons
        fitting += int(fits.sum())
        for i, name in enumerate(found.ids) if names else ():
            if fits[i] and name in names:
                labels.setdefault(name, _label(found[i]))
    return Offer(labels, fitting, passed_over)


def adopt(given: Offer, ids: Iterable[str], labeller: Labeller, cache: LabelCache) -> int:
    """Put the labels of these structures into the cache where it has none; return how many.

    A remembered failure gives way to a label; a label never does.
    """
    adopted = 0
    for name in ids:
        label = given.labels.get(name)
        if label is None or not labeller.cached:
            continue
        known = cache.get(name)
        if isinstance(known, Label) and not labeller.outdated(known):
            continue
        cache.put(name, label)
        adopted += 1
    if adopted:
        log.info("%d labels are taken from labelling.reuse_from", adopted)
    return adopted


def _read(file: str) -> Structures:
    from dubito.data.store import read_structures

    if Path(file).suffix not in (".h5", ".hdf5"):
        raise DataError(
            f"labelling.reuse_from: {file} is not one of dubito's .h5 files, which alone say with which settings a "
            "label was made. Name a dataset.h5 or what `dubito label` wrote; to have labels of other files looked up, "
            "set labelling.labeller to kind: dataset."
        )
    try:
        return read_structures(Path(file))
    except DataError as error:
        raise DataError(f"labelling.reuse_from: {error}") from error


def _fitting(found: Structures, labeller: Labeller) -> tuple[Array, Counter[str]]:
    """Return which structures have a label to be taken, (n,) bool, and why the other labels are not."""
    reasons: Counter[str] = Counter()
    kinds, hashes, methods = (found.text(f"provenance/{name}") for name in ("kind", "settings_hash", "method"))
    attempts, finite = found.column("provenance/attempts"), _finite(found)
    taken, settings_hash = np.zeros(len(found), bool), labeller.settings_hash
    for i in np.flatnonzero(found.is_labelled):
        if kinds[i] == MODEL:
            reasons["made by a model"] += 1
        elif kinds[i] != REFERENCE:
            reasons["of unknown origin"] += 1
        elif hashes[i] != settings_hash:
            reasons[f"of other settings, {methods[i] or 'unnamed'}"] += 1
        elif not finite[i]:
            reasons["not finite"] += 1
        elif attempts[i] > 1 and labeller.outdated(_label(found[i])):
            reasons["from a later rung of an SCF ladder that may be an older one"] += 1
        else:
            taken[i] = True
    return taken, reasons


def _finite(found: Structures) -> Array:
    """Return which structures have a finite energy and finite forces, (n,) bool."""
    bad = ~np.isfinite(found.forces).all(axis=1)
    finite: Array = np.isfinite(found.energy) & (np.bincount(found.structure_of_atom[bad], minlength=len(found)) == 0)
    return finite


def _label(one: Structures) -> Label:
    """Return the label of a structure as the cache keeps it.

    A dataset tells no processor time; the wall time stands in for it, which on one thread is the same.
    """
    stress = one.column("labels/stress")[0]
    wall = float(one.column("provenance/wall_time")[0])
    seconds = wall if np.isfinite(wall) else 0.0
    return Label(
        energy=float(one.energy[0]),
        forces=one.forces.copy(),
        stress=stress.copy() if np.isfinite(stress).all() else None,
        method=one.text("provenance/method")[0],
        code_version=one.text("provenance/code_version")[0],
        attempts=max(1, int(one.column("provenance/attempts")[0])),
        wall_time_s=seconds,
        cpu_time_s=seconds,
    )
