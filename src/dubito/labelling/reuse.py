"""Labels of earlier datasets (``labelling.reuse_from``): the same structure under the same settings costs nothing.

Of each file one label is checked, once, before any of it is taken: are its forces those of the energies around it?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.labelling import LabelChecksConfig
from dubito.core.errors import DataError, LabelError
from dubito.core.hashing import hash_file
from dubito.core.logs import get_logger
from dubito.data.structures import MODEL, REFERENCE, Array, Structures
from dubito.labelling.base import Label, Labeller
from dubito.labelling.cache import LabelCache
from dubito.labelling.gradient_check import Examiner
from dubito.labelling.vouching import Maker, suspect
from dubito.labelling.watch import Watch

log = get_logger(__name__)


_JOB = ("campaign", "stage", "iteration", "part", "host", "slurm_job", "code", "command", "created")


@dataclass(frozen=True)
class Lender:
    """A file that labels come from: its name, the hash of its content, and who wrote it, where it says so."""

    file: str
    sha256: str
    created_by: dict[str, Any]

    @property
    def maker(self) -> str:
        """Name it as the maker of its labels."""
        return f"file-{self.sha256[:16]}"


@dataclass(frozen=True)
class Offer:
    """What files have for one labeller.

    Attributes
    ----------
    labels : by id, of those structures that were asked for
    fitting : how many labels of the files are of the labeller's settings
    passed_over : labels that are not, counted by why
    lenders : the file of each of ``labels``, by id
    """

    labels: dict[str, Label]
    fitting: int
    passed_over: Counter[str]
    lenders: dict[str, Lender]

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
    lenders: dict[str, Lender] = {}
    fitting, names = 0, set(wanted)
    for file in files:
        found = _read(file)
        fits, reasons = _fitting(found, labeller)
        passed_over += reasons
        fitting += int(fits.sum())
        taken = [i for i, name in enumerate(found.ids) if fits[i] and name in names and name not in labels]
        lender = _lender(file) if taken else None
        for i in taken:
            if lender is not None and found.ids[i] not in labels:
                labels[found.ids[i]], lenders[found.ids[i]] = _label(found[i]), lender
    return Offer(labels, fitting, passed_over, lenders)


def adopt(
    given: Offer,
    structures: Structures,
    labeller: Labeller,
    cache: LabelCache,
    checks: LabelChecksConfig,
    watch: Watch | None = None,
) -> int:
    """Put the labels of these structures into the cache where it has none; return how many.

    A remembered failure gives way to a label; a label never does. What is put says which file it is from.

    Raises
    ------
    LabelError
        When the forces in a file are not those of its energies; nothing of it is put.
    """
    rows: dict[Maker, dict[int, tuple[Structures, Label]]] = {}
    for row, name in enumerate(structures.ids):
        label = given.labels.get(name)
        known = cache.get(name)
        if label is None or not labeller.cached or (isinstance(known, Label) and not labeller.outdated(known)):
            continue
        lender = given.lenders[name]
        maker = Maker(lender.maker, label.code_version, lender.file)
        rows.setdefault(maker, {})[row] = structures[row], label
    adopted = 0
    for maker, lent in rows.items():
        for row in _sound(maker, lent, Examiner(labeller, cache, checks, watch or Watch())):
            one, label = lent[row]
            lender = given.lenders[one.ids[0]]
            origin = {"file": lender.file, "sha256": lender.sha256, "created_by": lender.created_by}
            cache.put(one.ids[0], label, {"maker": lender.maker, "adopted_from": origin})
            adopted += 1
    if adopted:
        log.info("%d labels are taken from labelling.reuse_from", adopted)
    return adopted


def _sound(maker: Maker, lent: dict[int, tuple[Structures, Label]], examiner: Examiner) -> list[int]:
    """Return which of a file's labels may be taken: all but those found wrong."""
    if examiner.checks.gradient == "none" or maker.is_vouched(examiner.cache, examiner.checks):
        return list(lent)
    found = examiner.look_at(maker, lent)
    if found.right or not found.wrong:
        for key, verdict in found.wrong.values():
            suspect(examiner.cache, key, f"Its label in {maker.file} was refused: {verdict}.")
        return [row for row in lent if row not in found.wrong]
    key, verdict = next(iter(found.wrong.values()))
    which = f"{maker.file} (labelling.reuse_from)"
    if found.outdated or not any(found.remade.values()):
        raise LabelError(
            f"The forces in {which} are not the derivative of the energies around them. Each of {len(found.wrong)} "
            f"structures was moved along a line to both sides; the first, {key}, gives {verdict}. Nothing of it was "
            "taken. Take the file out of labelling.reuse_from, or mend it; if you know why it differs, set "
            "labelling.checks.gradient to none."
        )
    raise LabelError(
        f"Neither the labels of {which} nor those that the labeller '{examiner.labeller.name}' makes of the same "
        f"structures have forces that are the derivative of its energies (structure {key}, from the file: {verdict}). "
        "Nothing was taken. Mend the labeller first: what it makes can't tell whether the file is right."
    )


def _lender(file: str) -> Lender:
    from dubito.data.store import read_attributes

    about = read_attributes(Path(file)).get("created_by")
    job = {key: about[key] for key in _JOB if about.get(key) is not None} if isinstance(about, dict) else {}
    return Lender(file, hash_file(Path(file), 64), job)


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
