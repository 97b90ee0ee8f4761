"""Do the labeller's forces belong to its energies? Asked before a dataset sees its first label.

A structure is labelled at three points of a short line: where it is and ``STEP`` to either side of it, along a
direction drawn by chance and turned towards its forces; then along another. On each half of a line the work of the
forces, by the quadratic through their three values, must be what the energy loses. Unlike a difference of energies held
against the force in the middle, this says something at a minimum too, where forces vanish and any multiple does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.config.labelling import LabelChecksConfig
from dubito.core.errors import DataError, LabelError
from dubito.core.files import read_json, write_json
from dubito.core.logs import get_logger
from dubito.core.random import generator
from dubito.data.structures import Structures
from dubito.labelling.base import GRADIENT, Label, Labeller, LabellingFailure
from dubito.labelling.cache import LabelCache
from dubito.labelling.watch import Watch

log = get_logger(__name__)

Array = NDArray[Any]
Refusals = dict[int, tuple[str, str]]

STEP = 0.02
"""Å, the length of all atoms' displacement together."""
RELATIVE = 0.02
"""Share of the force that may be missing besides the tolerance."""
TRIES = 3
"""So many structures must accuse a labeller, where the job has as many, before it is refused as a whole."""
LINES = 2
"""Lines through the first structure; a fault of one atom may by chance not show along one."""
FILE = "checks/gradient_check.json"
"""Within the folder of the cached labels, one level below them."""


@dataclass(frozen=True)
class Verdict:
    """What three labels on a line say: forces by difference of energies and from the labels, eV/Å, on both halves."""

    from_energies: tuple[float, float]
    from_forces: tuple[float, float]
    tolerance: float

    @property
    def difference(self) -> float:
        """The larger difference, eV/Å."""
        return max(abs(a - b) for a, b in zip(self.from_energies, self.from_forces, strict=True))

    @property
    def agrees(self) -> bool:
        """Whether forces and energies belong together."""
        scale = max(map(abs, self.from_energies + self.from_forces))
        return self.difference <= self.tolerance + RELATIVE * scale

    def __str__(self) -> str:
        pairs = zip(self.from_energies, self.from_forces, strict=True)
        return "; ".join(f"{a:.4g} eV/Å from energies, {b:.4g} from forces" for a, b in pairs)


def check_gradients(
    labelled: Structures,
    labeller: Labeller,
    cache: LabelCache,
    checks: LabelChecksConfig,
    watch: Watch | None = None,
) -> Refusals:
    """Compare forces with energies: of the first label under these settings and this code, of all labels, or of none.

    The result is kept beside the labels, in ``checks/gradient_check.json``. What is labelled for it beside the
    structures is not kept: it belongs to no dataset.

    Parameters
    ----------
    labelled : what the labelling job made
    watch : is told which structure is in hand

    Returns
    -------
    Rows whose label is wrong, with reason and explanation. Empty when there is nothing to do, or nothing that could
    be judged: a labeller that looks labels up has none beside the structures.

    Raises
    ------
    LabelError
        When no label agrees with its energies: nothing of this labeller is to be trusted.
    """
    if checks.gradient == "none" or not labeller.cached:
        return {}
    every, wrong, right = checks.gradient == "all", dict[int, Verdict](), 0
    watch = watch or Watch()
    for row in np.flatnonzero(labelled.is_labelled):
        one, label = labelled[int(row)], cache.get(labelled.ids[row])
        if not isinstance(label, Label):
            continue
        if not every and _is_known(cache, label, checks):
            break
        if watch.before(one.ids[0]) is not None:
            continue
        verdict = _examined(one, label, labeller, checks)
        watch.after(one.ids[0], failed=False, reused=True)
        if verdict is None:
            continue
        if verdict.agrees:
            right += 1
            if right == 1:
                _remember(cache, one, label, verdict, checks)
        else:
            wrong[int(row)] = verdict
        if not every and (right or len(wrong) == TRIES):
            break
    if wrong and not right:
        raise LabelError(_accusation(labeller, list(wrong.values()), checks))
    return {row: (GRADIENT, f"Its forces are not the derivative of its energy: {v}.") for row, v in wrong.items()}


def _examined(one: Structures, label: Label, labeller: Labeller, checks: LabelChecksConfig) -> Verdict | None:
    """Look along two lines, or along one where every structure is looked at; return the worse verdict."""
    worst = None
    for line in range(1 if checks.gradient == "all" else LINES):
        verdict = examine(one, label, labeller.label, checks.gradient_tolerance_ev_per_angstrom, line)
        if verdict is None or not verdict.agrees:
            return verdict
        if worst is None or verdict.difference > worst.difference:
            worst = verdict
    return worst


def examine(
    one: Structures, label: Label, make: Callable[[Structures], Label], tolerance: float, line: int = 0
) -> Verdict | None:
    """Compare forces and energies around one labelled structure; None when nothing can be said.

    Where its neighbours can't be labelled; and where the SCF climbed the ladder: its solutions may differ from one
    point to the next, which is no fault of the gradient.

    Parameters
    ----------
    make : labels a structure
    tolerance : eV/Å
    line : which direction; the first leans towards the forces, so that a factor shows, others are drawn by chance
    """
    if label.attempts > 1:
        return None
    direction = _direction(one, label.forces, line)
    try:
        low, high = (make(replace(one, positions=one.positions + side * STEP * direction)) for side in (-1, 1))
    except LabellingFailure as failure:
        log.info("the gradient can't be checked at structure %s: %s", one.ids[0], failure)
        return None
    if max(low.attempts, high.attempts) > 1:
        return None
    along = [float((each.forces * direction).sum()) for each in (low, label, high)]
    noise = 2e-6 / STEP + 4 * (label.force_noise or 0.0)
    return Verdict(
        from_energies=((low.energy - label.energy) / STEP, (label.energy - high.energy) / STEP),
        # Integrals of the parabola through three points over the left and the right half.
        from_forces=(
            (5 * along[0] + 8 * along[1] - along[2]) / 12,
            (5 * along[2] + 8 * along[1] - along[0]) / 12,
        ),
        tolerance=tolerance + noise,
    )


def _direction(one: Structures, forces: Array, line: int) -> Array:
    """Return a unit vector of all coordinates, drawn by chance."""
    drawn = generator(0, "gradient check", one.ids[0], str(line)).normal(size=forces.shape)
    drawn /= max(float(np.linalg.norm(drawn)), 1e-12)
    steepest = float(np.linalg.norm(forces))
    if line == 0 and steepest > 0:
        drawn += forces / steepest
    direction: Array = drawn / max(float(np.linalg.norm(drawn)), 1e-12)
    return direction


def _is_known(cache: LabelCache, label: Label, checks: LabelChecksConfig) -> bool:
    """Say whether this code passed the check before, with a tolerance as strict."""
    path = cache.folder / FILE
    try:
        found = read_json(path) if path.exists() else {}
        return bool(
            found.get("code_version") == label.code_version
            and found["tolerance_ev_per_angstrom"] <= checks.gradient_tolerance_ev_per_angstrom
        )
    except (DataError, OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _remember(cache: LabelCache, one: Structures, label: Label, verdict: Verdict, checks: LabelChecksConfig) -> None:
    write_json(
        cache.folder / FILE,
        {
            "code_version": label.code_version,
            "structure": one.ids[0],
            "from_energies_ev_per_angstrom": list(verdict.from_energies),
            "from_forces_ev_per_angstrom": list(verdict.from_forces),
            "difference_ev_per_angstrom": verdict.difference,
            "tolerance_ev_per_angstrom": checks.gradient_tolerance_ev_per_angstrom,
        },
    )


def _accusation(labeller: Labeller, wrong: list[Verdict], checks: LabelChecksConfig) -> str:
    many, tolerance = "A structure", checks.gradient_tolerance_ev_per_angstrom
    if len(wrong) > 1:
        many = f"Each of {len(wrong)} structures"
    return (
        f"The forces of the labeller '{labeller.name}' are not the derivative of its energies. {many} was moved along "
        f"a line to both sides; the first gives {wrong[0]} (tolerance {tolerance:g} eV/Å and {100 * RELATIVE:g} %). A "
        "model can't learn both, so nothing enters the dataset. Mend the labeller (sign and unit of its forces, a "
        "finer grid, a tighter SCF), raise labelling.checks.gradient_tolerance_ev_per_angstrom, or set "
        "labelling.checks.gradient to none if you know why."
    )
