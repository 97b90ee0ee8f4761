"""Relax a geometry with a labeller, through ASE; every label goes through the cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.config.evaluation import InversionProfile
from dubito.config.labelling import LabelChecksConfig
from dubito.core.errors import ConfigError
from dubito.data.structures import Structures
from dubito.labelling.base import Label, Labeller, LabellingFailure
from dubito.labelling.cache import Failure, LabelCache
from dubito.labelling.gradient_check import TRIES, check_gradients
from dubito.labelling.inversion import normal_of
from dubito.labelling.sane import insane
from dubito.labelling.service import label_one
from dubito.labelling.vouching import maker_of

Array = NDArray[Any]

FORCE_TOLERANCE = 0.01
"""eV/Å; an end point's energy is then within about 0.01 meV of converged."""
MAX_STEPS = 100


class LabelSource:
    """Labels single structures for one purpose and counts what that took.

    Parameters
    ----------
    checks : what each label must stand before it is used; None: it is used as it is

    Attributes
    ----------
    computed, reused : labels made, and labels that were known
    """

    def __init__(
        self, labeller: Labeller, cache: LabelCache | None, purpose: str, checks: LabelChecksConfig | None = None
    ) -> None:
        self.labeller, self.cache, self.purpose, self.checks = labeller, cache, purpose, checks
        self.computed = self.reused = self._undecided = 0
        self._cpu_s: dict[str, float] = {}

    @property
    def cpu_s(self) -> float:
        """Processor time of all labels, each once, whichever run made them; s."""
        return sum(self._cpu_s.values())

    def __call__(self, structure: Structures) -> Label:
        """Label one structure.

        Raises
        ------
        LabellingFailure
            When it can't be: what needs every one of its labels can't go on without.
        LabelError
            When its forces are not those of its energies.
        """
        outcome = label_one(structure, self.labeller, self.cache)
        self.computed += not outcome.reused
        self.reused += outcome.reused
        self._cpu_s[structure.ids[0]] = outcome.result.cpu_time_s
        result = outcome.result
        if isinstance(result, Failure):
            message = f"{self.purpose}: a structure could not be labelled ({result.reason}). {result.message}"
            raise LabellingFailure(result.reason, message, result.attempts)
        if self.checks is not None:
            self._check(structure, result, self.checks)
        return result

    def _check(self, structure: Structures, label: Label, checks: LabelChecksConfig) -> None:
        """Refuse what no physics allows, and a maker whose labels contradict each other, once it is known of any."""
        one = structure.with_columns(
            labels__energy=[label.energy], labels__forces=label.forces, labels__mask=[True]
        )  # fmt: skip
        wrong = insane(one, checks)
        key = structure.ids[0]
        if not wrong and self.cache is not None and self._undecided < TRIES:
            wrong = check_gradients(one, self.labeller, self.cache, checks)
            # Where nothing can be said (an SCF that climbed the ladder) it is not tried for each label again.
            self._undecided += not wrong and not maker_of(self.cache, key, label).is_vouched(self.cache, checks)
        for reason, text in wrong.values():
            raise LabellingFailure(reason, f"{self.purpose}: the label of structure {key} is refused. {text}")


class KeepInPlane:
    """ASE constraint: the centre stays in the plane of its three neighbours (height zero)."""

    def __init__(self, profile: InversionProfile) -> None:
        self.profile = profile

    def adjust_positions(self, atoms: Any, positions: Array) -> None:
        """Put the centre back into the plane."""
        normal, center = normal_of(positions, self.profile), self.profile.center_atom
        positions[center] -= (positions[center] - positions[self.profile.plane_atoms[0]]) @ normal * normal

    def adjust_forces(self, atoms: Any, forces: Array) -> None:
        """Remove the force along the height's gradient, which in the plane is made of the normal alone."""
        positions, center = atoms.positions, self.profile.center_atom
        corners = self.profile.plane_atoms
        # In the plane the height's gradient is the normal on the centre and, on each neighbour, minus
        # the normal times the centre's barycentric coordinate.
        weights, *_ = np.linalg.lstsq(
            np.vstack([positions[corners].T, np.ones(3)]), np.append(positions[center], 1.0), rcond=None
        )
        gradient = np.zeros_like(forces)
        gradient[center] = 1.0
        gradient[corners] = -weights[:, None]
        gradient *= normal_of(positions, self.profile)
        forces -= (forces * gradient).sum() / (gradient**2).sum() * gradient

    def get_removed_dof(self, atoms: Any) -> int:
        """One degree of freedom is fixed."""
        return 1


def relax(structure: Structures, source: LabelSource, constraint: KeepInPlane | None = None) -> Structures:
    """Return the geometry of the nearest stationary point of one molecule.

    BFGS (ASE) until no force exceeds 0.01 eV/Å.

    Raises
    ------
    ConfigError
        When 100 steps do not suffice.
    LabellingFailure
        When a geometry on the way can't be labelled.
    """
    from ase import Atoms
    from ase.calculators.calculator import Calculator, all_changes
    from ase.optimize import BFGS

    class Bridge(Calculator):  # type: ignore[misc]  # ASE is not typed
        """ASE asks, the label source answers."""

        implemented_properties = ("energy", "forces")

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties, system_changes)
            label = source(replace(structure, positions=self.atoms.positions.copy()))
            self.results = {"energy": label.energy, "forces": label.forces.copy()}

    atoms = Atoms(numbers=structure.atomic_numbers, positions=structure.positions, calculator=Bridge())
    if constraint is not None:
        atoms.set_constraint(constraint)
    if not BFGS(atoms, logfile=None).run(fmax=FORCE_TOLERANCE, steps=MAX_STEPS):
        raise ConfigError(
            f"{source.purpose}: the geometry did not relax to {FORCE_TOLERANCE} eV/Å in {MAX_STEPS} steps. Start from "
            "a better geometry (data.initial), set relax to false, or set evaluation.profiles to []."
        )
    return replace(structure, positions=atoms.positions.copy())
