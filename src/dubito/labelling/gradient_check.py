"""Do the labeller's forces belong to its energies? Asked before a dataset sees its first label.

A structure is labelled at three points of a short line: where it is and ``STEP`` to either side of it, along a
direction drawn by chance and turned towards its forces; then along another. On each half of a line the work of the
forces, by the quadratic through their three values, must be what the energy loses. Unlike a difference of energies held
against the force in the middle, this says something at a minimum too, where forces vanish and any multiple does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.config.labelling import LabelChecksConfig
from dubito.core.errors import LabelError
from dubito.core.logs import get_logger
from dubito.core.random import generator
from dubito.data.structures import Structures
from dubito.labelling.base import GRADIENT, Label, Labeller, LabellingFailure
from dubito.labelling.cache import Failure, LabelCache
from dubito.labelling.service import attempt
from dubito.labelling.vouching import Maker, all_of, fingerprint, is_suspect, maker_of, set_aside, suspect, trust, vouch
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
    """Compare forces with energies: of one label of each maker that no check vouches for, of all labels, or of none.

    Verdicts are kept beside the labels, see :mod:`dubito.labelling.vouching`. What is labelled for them beside the
    structures is not kept: it belongs to no dataset. Refused labels are moved to the folder ``refused`` of the cache.

    Parameters
    ----------
    labelled : what the labelling job made
    cache : signed, so that it is known which labels this code made
    watch : is told which structure is in hand

    Returns
    -------
    Rows whose label is wrong, with reason and explanation. Empty when there is nothing to do, or nothing that could
    be judged: a labeller that looks labels up has none beside the structures.

    Raises
    ------
    LabelError
        When no label agrees with its energies: nothing of this labeller is to be trusted. Or when labels that were
        made earlier do not, while those of the present code do: they have been moved and are made again.
    """
    if checks.gradient == "none" or not labeller.cached:
        return {}
    job = Examiner(labeller, cache, checks, watch or Watch())
    found = []
    for maker, labels in _by_maker(labelled, cache).items():
        known = maker.is_vouched(cache, checks)
        few = known and checks.gradient != "all"
        rows = {
            row: (labelled[row], label)
            for row, label in labels.items()
            if not few or is_suspect(cache, labelled.ids[row])
        }
        found.append(job.look_at(maker, rows, known=known))
    return job.judged(found)


@dataclass
class Findings:
    """What was found of one maker's labels."""

    maker: Maker
    known: bool
    own: bool
    right: int = 0
    wrong: dict[int, tuple[str, Verdict]] = field(default_factory=dict)
    """By row: structure, and what its label says."""
    remade: dict[int, Verdict | None] = field(default_factory=dict)
    """By row of the wrong ones: what the label says that the present code makes of the structure."""

    @property
    def outdated(self) -> list[str]:
        """Structures whose label is wrong while what the present code makes of them is right."""
        return [self.wrong[row][0] for row, verdict in self.remade.items() if verdict is not None and verdict.agrees]


class Examiner:
    """Looks at labels, and draws the conclusion."""

    def __init__(self, labeller: Labeller, cache: LabelCache, checks: LabelChecksConfig, watch: Watch) -> None:
        self.labeller, self.cache, self.checks, self.watch = labeller, cache, checks, watch

    def look_at(self, maker: Maker, rows: Mapping[int, tuple[Structures, Label]], *, known: bool = False) -> Findings:
        """Look at one maker's labels: until one agrees with its energies, or three do not; at all where that is asked
        or where the maker is ``known`` and these are in doubt for themselves."""
        every = known or self.checks.gradient == "all"
        found = Findings(maker, known, own=maker.name in self.cache.makers)
        for row, (one, label) in rows.items():
            key = one.ids[0]
            settled = not every and (found.right or len(found.wrong) >= TRIES)
            if settled and not is_suspect(self.cache, key):
                continue
            if self.watch.before(key) is not None:
                continue
            verdict = self._examined(one, label)
            if verdict is not None and not verdict.agrees:
                found.wrong[row] = key, verdict
                if not found.own and not known and not found.right:
                    found.remade[row] = self._remade(one)
            self.watch.after(key, failed=False, reused=True)
            if verdict is not None and verdict.agrees:
                found.right += 1
                trust(self.cache, key)
                if found.right == 1 and not known:
                    vouch(self.cache, maker, self.labeller, _record(key, verdict, self.checks))
        return found

    def judged(self, found: list[Findings]) -> Refusals:
        """Return which labels are refused alone, or raise."""
        some_right = any(one.right for one in found)
        refused: Refusals = {}
        for one in found:
            whole = one.wrong and not one.right and (not one.known or len(one.wrong) >= TRIES)
            if whole and not some_right and not one.outdated:
                self._accuse_labeller(one)
            if whole and one.outdated:
                self._accuse_earlier(one)
            for row, (key, verdict) in one.wrong.items():
                text = f"Its forces are not the derivative of its energy: {verdict}."
                suspect(self.cache, key, text)
                refused[row] = GRADIENT, text
            if one.wrong:
                set_aside(self.cache, [key for key, _ in one.wrong.values()])
        return refused

    def make(self, one: Structures) -> Label:
        """Label a structure; whatever goes wrong is a failure of it.

        Raises
        ------
        LabellingFailure
        """
        result = attempt(one, self.labeller)
        if isinstance(result, Failure):
            raise LabellingFailure(result.reason, result.message, result.attempts)
        return result

    def _remade(self, one: Structures) -> Verdict | None:
        """Examine what the present code makes of a structure."""
        try:
            return self._examined(one, self.make(one))
        except LabellingFailure:
            return None

    def _examined(self, one: Structures, label: Label) -> Verdict | None:
        """Look along two lines, or along one where every structure is looked at; return the worse verdict."""
        worst = None
        for line in range(1 if self.checks.gradient == "all" else LINES):
            verdict = examine(one, label, self.make, self.checks.gradient_tolerance_ev_per_angstrom, line)
            if verdict is None or not verdict.agrees:
                return verdict
            if worst is None or verdict.difference > worst.difference:
                worst = verdict
        return worst

    def _accuse_labeller(self, one: Findings) -> None:
        verdicts = [verdict for _, verdict in one.wrong.values()]
        if one.remade:
            verdicts = [verdict for verdict in one.remade.values() if verdict is not None] or verdicts
        moved = ""
        if one.own or one.maker.name.startswith(fingerprint(self.labeller)):
            ids = [key for key, _ in one.wrong.values()] if one.known else all_of(self.cache, one.maker)
            moved = (
                f" What it made was moved to {set_aside(self.cache, ids)} ({_labels(ids)}), so that the next start "
                "makes it anew; if the labels are good enough after all, move them back first."
            )
        raise LabelError(_accusation(self.labeller, verdicts, self.checks) + moved)

    def _accuse_earlier(self, one: Findings) -> None:
        # Few wrong ones may be wrong for themselves: what is moved for their sake is no more than they.
        ids = all_of(self.cache, one.maker) if len(one.outdated) >= TRIES else one.outdated
        folder = set_aside(self.cache, ids)
        whose = f"were taken from {one.maker.file} (labelling.reuse_from)" if one.maker.file else "were made earlier"
        advice = "Take the file out of labelling.reuse_from, and start" if one.maker.file else "Start"
        raise LabelError(
            f"Labels of '{self.labeller.name}' in {self.cache.folder} that {whose} have forces that are not the "
            f"derivative of their energies ({_first(one)}), while those that the labeller makes now do: it was another "
            f"labeller, or was mended since. They were moved to {folder} ({_labels(ids)}). {advice} the same "
            "command again: they are made anew. To keep them, set labelling.checks.gradient to none and move them back."
        )


def _labels(ids: list[str]) -> str:
    return f"{len(ids)} label{'s'[: len(ids) != 1]}"


def _first(one: Findings) -> str:
    key, verdict = next(iter(one.wrong.values()))
    return f"structure {key}: {verdict}"


def _by_maker(labelled: Structures, cache: LabelCache) -> dict[Maker, dict[int, Label]]:
    """Return the cached labels of a job by who made them."""
    makers: dict[Maker, dict[int, Label]] = {}
    for row in map(int, np.flatnonzero(labelled.is_labelled)):
        label = cache.get(labelled.ids[row])
        if isinstance(label, Label):
            makers.setdefault(maker_of(cache, labelled.ids[row], label), {})[row] = label
    return makers


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


def _record(key: str, verdict: Verdict, checks: LabelChecksConfig) -> dict[str, Any]:
    return {
        "structure": key,
        "from_energies_ev_per_angstrom": list(verdict.from_energies),
        "from_forces_ev_per_angstrom": list(verdict.from_forces),
        "difference_ev_per_angstrom": verdict.difference,
        "tolerance_ev_per_angstrom": checks.gradient_tolerance_ev_per_angstrom,
    }


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
