"""Label many structures so that a death in between costs at most the one in hand."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dubito.core.errors import EnvironmentFault, LabelError, MemoryFault, StorageError
from dubito.core.hashing import hash_json
from dubito.core.logs import get_logger
from dubito.core.progress import track
from dubito.data.structures import Structures
from dubito.labelling.base import CRASHED, REFUSED, Label, Labeller, LabellingFailure
from dubito.labelling.cache import Failure, LabelCache
from dubito.labelling.watch import Watch

log = get_logger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one structure, and whether it was known before."""

    result: Label | Failure
    reused: bool

    @property
    def label(self) -> Label | None:
        """The label, if there is one."""
        return self.result if isinstance(self.result, Label) else None


def label_one(
    structure: Structures,
    labeller: Labeller,
    cache: LabelCache | None,
    *,
    retry_failed: bool = False,
    forbidden: Failure | None = None,
) -> Outcome:
    """Look one structure up in the cache, or label it and keep the result; a failure is a result too.

    A remembered failure stands until the labeller's effort changes (more SCF cycles, say) or ``retry_failed``.
    A program that crashed is not remembered: the cause may have been a passing one, such as a full temporary
    folder. A remembered label that the labeller no longer accepts counts as failed, and stays in the cache; one
    that is outdated is made again.

    Raises
    ------
    StorageError
        When a file can't be written; going on would lose every further label.
    EnvironmentFault
        When memory runs out: with more of it the same structure may well succeed.
    """
    key, effort = structure.ids[0], hash_json(labeller.effort())
    if cache is not None and labeller.cached:
        known = cache.get(key, labeller.outdated)
        if isinstance(known, Label) and not labeller.outdated(known):
            return Outcome(_judged(known, labeller), reused=True)
        if isinstance(known, Failure) and _stands(known, effort, retry_failed):
            return Outcome(known, reused=True)
    if forbidden is not None:
        return Outcome(forbidden, reused=False)
    result = attempt(structure, labeller)
    if isinstance(result, Failure):
        result = replace(result, effort=effort)
        log.warning("structure %s could not be labelled (%s): %s", key, result.reason, result.message)
        meanwhile = None if cache is None or not labeller.cached else cache.get(key)
        if isinstance(meanwhile, Label) and not labeller.outdated(meanwhile):
            return Outcome(_judged(meanwhile, labeller), reused=True)  # of another campaign, with more effort
    crashed = isinstance(result, Failure) and result.reason == CRASHED
    if cache is not None and labeller.cached and not crashed:
        cache.put(key, result)
    if isinstance(result, Label):
        # One line for each label that was paid for: what was computed twice can be counted.
        log.info("structure %s labelled in %.2f s", key, result.wall_time_s)
    return Outcome(result, reused=False)


def _stands(known: Failure, effort: str, retry_failed: bool) -> bool:
    """Say whether a remembered failure is final."""
    return not retry_failed and known.effort == effort and known.reason != CRASHED


def _judged(known: Label, labeller: Labeller) -> Label | Failure:
    """Return a remembered label, or the failure it is under settings that have become stricter."""
    failure = labeller.accepts(known)
    if failure is None:
        return known
    return Failure(failure.reason, str(failure), failure.attempts, known.wall_time_s, known.cpu_time_s)


def attempt(structure: Structures, labeller: Labeller) -> Label | Failure:
    """Label one structure, without the cache; whatever the labeller's program raises is a failure of this structure.

    Raises
    ------
    StorageError, EnvironmentFault
        As :func:`label_one`.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        result: Label | Failure = labeller.label(structure)
    except LabellingFailure as failure:
        result = Failure(failure.reason, str(failure), failure.attempts)
    except (StorageError, EnvironmentFault):
        raise
    except MemoryError as error:
        raise MemoryFault(
            f"The memory ran out while structure {structure.ids[0]} was labelled. Give the rule label_structures "
            "more mem_mb in the profile and start again: the labels before it are kept."
        ) from error
    except Exception as error:  # whatever a labeller's program raises costs one structure, not the campaign
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"The labeller '{labeller.name}' could not write a temporary file: the disk is full or the quota is "
                "used up. Free some space (or set TMPDIR to another disk) and start the same command again: "
                "the labels made so far are kept and are not computed twice."
            ) from error
        log.exception("labeller %s raised an error", labeller.name)
        detail = " ".join(str(error).split())[:300]
        result = Failure(CRASHED, f"{labeller.name} raised {type(error).__name__}: {detail}")
    return replace(result, wall_time_s=time.perf_counter() - wall, cpu_time_s=time.process_time() - cpu)


def label_structures(
    structures: Structures,
    labeller: Labeller,
    cache: LabelCache | None,
    *,
    retry_failed: bool = False,
    refuse_all: bool = True,
    watch: Watch | None = None,
) -> tuple[Structures, dict[str, Any]]:
    """Label structures, in order, each kept as soon as it is finished.

    Parameters
    ----------
    retry_failed : try again what failed in an earlier run; otherwise that is remembered as failed
    refuse_all : when one structure is refused by the labeller's check, raise before anything is spent (input
        of a user, who can mend it); False: record it as failed and label the others (candidates of a campaign)
    watch : is told before and after each structure

    Returns
    -------
    structures : the same, with columns ``labels/*`` and ``provenance/*``; ``labels/mask`` is false where it failed
    report : ``done``, ``failed`` (list of id, reason, message), ``reused``, ``cpu_s`` and ``wall_s`` (of all these
        labels and failures, whichever run made them), ``retried`` (labels that took more than one attempt)

    Raises
    ------
    LabelError, StorageError, EnvironmentFault
        See above and :func:`label_one`.
    """
    refused = _refused(structures, labeller, refuse_all)
    watch = watch or Watch()
    outcomes = []
    for i, one in enumerate(track(structures, len(structures), "labels")):
        if i in refused:
            outcome = Outcome(Failure(REFUSED, refused[i], attempts=0), reused=False)
        else:
            forbidden = watch.before(one.ids[0])
            outcome = label_one(one, labeller, cache, retry_failed=retry_failed, forbidden=forbidden)
        reused = watch.after(one.ids[0], failed=outcome.label is None, reused=outcome.reused)
        outcomes.append(replace(outcome, reused=reused))
    return _with_labels(structures, outcomes, labeller.settings_hash), _report(structures, outcomes)


def _refused(structures: Structures, labeller: Labeller, refuse_all: bool) -> dict[int, str]:
    try:
        labeller.check(structures)
        return {}
    except LabelError:
        if refuse_all:
            raise
    refused = {}
    for i, one in enumerate(structures):
        try:
            labeller.check(one)
        except LabelError as error:
            log.warning("structure %s is not labelled: %s", one.ids[0], error)
            refused[i] = str(error)
    return refused


def _report(structures: Structures, outcomes: list[Outcome]) -> dict[str, Any]:
    failed = [
        {"id": key, "reason": o.result.reason, "message": o.result.message}
        for key, o in zip(structures.ids, outcomes, strict=True)
        if isinstance(o.result, Failure)
    ]
    labels = [o.label for o in outcomes if o.label is not None]
    return {
        "done": len(labels),
        "failed": failed,
        "reused": sum(o.reused and o.label is not None for o in outcomes),
        "retried": sum(label.attempts > 1 for label in labels),
        "cpu_s": float(sum(o.result.cpu_time_s for o in outcomes)),
        "wall_s": float(sum(o.result.wall_time_s for o in outcomes)),
    }


def _with_labels(structures: Structures, outcomes: list[Outcome], settings_hash: str) -> Structures:
    labels = [o.label for o in outcomes]
    counts = structures.n_atoms
    # A failed structure has no label at all, whatever it came with.
    forces = [
        np.full((n, 3), np.nan) if label is None else label.forces for label, n in zip(labels, counts, strict=True)
    ]
    stress = [np.full(6, np.nan) if label is None or label.stress is None else label.stress for label in labels]
    columns: dict[str, Any] = {
        "labels__energy": [np.nan if label is None else label.energy for label in labels],
        "labels__forces": np.concatenate(forces) if forces else np.zeros((0, 3)),
        "labels__mask": [label is not None for label in labels],
        "provenance__kind": ["" if label is None else label.kind for label in labels],
        "provenance__method": ["" if label is None else label.method[:64] for label in labels],
        "provenance__code_version": ["" if label is None else label.code_version[:32] for label in labels],
        "provenance__settings_hash": ["" if label is None else settings_hash for label in labels],
        "provenance__attempts": [o.result.attempts for o in outcomes],
        "provenance__wall_time": [o.result.wall_time_s for o in outcomes],
    }
    if "labels/stress" in structures.columns or any(label is not None and label.stress is not None for label in labels):
        columns["labels__stress"] = stress
    return structures.with_columns(**columns)
