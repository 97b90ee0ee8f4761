"""Kohn-Sham labels of molecules from PySCF (https://doi.org/10.1063/5.0006074)."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np

from dubito.config.labelling import PyscfConfig
from dubito.core.logs import get_logger
from dubito.core.units import BOHR_ANGSTROM, HARTREE_EV
from dubito.data.structures import Structures
from dubito.labelling.base import (
    SCF_NOT_CONVERGED,
    Label,
    Labeller,
    LabellingFailure,
    excess_net_force,
    net_force_of,
    verified,
)
from dubito.labelling.checks import (
    refuse_impossible_multiplicity,
    refuse_overlap,
    refuse_periodic,
    symbols,
)
from dubito.labelling.pyscf_checks import check_basis, check_functional, core_potentials

log = get_logger(__name__)

VERSION = 1
"""Raised when a change here alters labels."""

# Third rung of the ladder, after plain DIIS and second-order SCF from its orbitals.
DAMPING = 0.5
LEVEL_SHIFT_HARTREE = 0.3
DAMPED_CYCLES = 40


_EFFORT = ("max_cycle", "max_net_force_ev_per_angstrom")


class PyscfLabeller(Labeller):
    """RKS for singlets, UKS otherwise; density fitting, analytic gradient.

    An SCF that does not converge climbs a ladder: plain DIIS; second-order steps (co-iterative augmented Hessian,
    https://arxiv.org/abs/1610.08423) from the orbitals it left; a fresh start with damping and level shift, then
    second-order steps from there. In that order because, in trials on awkward molecules (torn ammonia, singlet
    oxygen, FeO), second-order steps rescued what defeated DIIS and damping with a level shift did not. Nothing
    unconverged leaves this class.
    """

    name: ClassVar[str] = "pyscf"

    def __init__(self, config: PyscfConfig, *, threads: int = 1) -> None:
        """Check the functional and claim ``threads`` threads.

        Raises
        ------
        LabelError
            When PySCF does not know the functional, or has no gradient for it.
        """
        from pyscf import lib

        check_functional(config.xc)
        lib.num_threads(threads)
        self.config = config
        self.full_grid_gradient = _needs_grid_response(config)

    def settings(self) -> dict[str, Any]:
        """Return everything that changes a label.

        Of PySCF's version only the major part counts: minor releases reproduce energies to the SCF's
        convergence, and a campaign must not lose its labels to an upgrade. The exact one is kept with each label.
        """
        values = self.config.model_dump(mode="json")
        return {
            "labeller": self.name,
            "version": VERSION,
            "pyscf": version("pyscf").split(".")[0],
            "grid_response": self.full_grid_gradient,
            **{key: value for key, value in values.items() if key not in ("kind", *_EFFORT)},
        }

    def effort(self) -> dict[str, Any]:
        """Return how far the SCF goes and how strictly it is judged: a converged label does not depend on it."""
        return {key: getattr(self.config, key) for key in _EFFORT}

    def accepts(self, label: Label) -> LabellingFailure | None:
        """Hold a remembered label to the present limit of the net force, which may be stricter than its own was."""
        if label.net_force is None:
            return None
        return excess_net_force(label.net_force, self.config.max_net_force_ev_per_angstrom, label.attempts)

    def check(self, structures: Structures) -> None:
        """Raise LabelError for cells, overlaps, impossible multiplicities, elements without basis functions."""
        refuse_periodic(structures, self.name)
        refuse_overlap(structures)
        refuse_impossible_multiplicity(structures)
        elements = symbols(np.unique(structures.atomic_numbers))
        where = "one of the structures" if len(structures) > 1 else "the structure"
        check_basis(self.config.basis, elements, key="basis", where=where)
        if self.config.density_fit and self.config.auxbasis is not None:
            check_basis(self.config.auxbasis, elements, key="auxbasis", where=where)

    def label(self, structure: Structures) -> Label:
        """Run the SCF and its gradient for one molecule."""
        scf, attempts = self._converged(self._molecule(structure))
        gradient = scf.nuc_grad_method()
        gradient.grid_response = self.full_grid_gradient
        forces = -np.asarray(gradient.kernel()) * HARTREE_EV / BOHR_ANGSTROM
        label = Label(
            energy=float(scf.e_tot) * HARTREE_EV,
            forces=forces,
            attempts=attempts,
            method=f"pyscf {self.config.xc}/{self.config.basis}",
            code_version=f"pyscf {version('pyscf')}",
        )
        verified(label, self.config.max_net_force_ev_per_angstrom)
        label = replace(label, net_force=net_force_of(label))
        # What is left of the net force is noise of the grid that no invariant model can learn.
        label.forces[:] -= label.forces.mean(axis=0)
        return label

    def _molecule(self, one: Structures) -> Any:
        from pyscf import gto

        names = symbols(one.atomic_numbers)
        return gto.M(
            atom=list(zip(names, one.positions.tolist(), strict=True)),
            unit="Angstrom",
            basis=self.config.basis,
            ecp=core_potentials(self.config.basis, sorted(set(names))),
            charge=int(one.charge[0]),
            spin=int(one.multiplicity[0]) - 1,
            verbose=0,
            parse_arg=False,
        )

    def _mean_field(self, molecule: Any) -> Any:
        from pyscf import dft

        scf = (dft.UKS if molecule.spin else dft.RKS)(molecule, xc=self.config.xc)
        if self.config.density_fit:
            scf = scf.density_fit(auxbasis=self.config.auxbasis)
        scf.grids.level = self.config.grid_level
        scf.conv_tol = self.config.conv_tol_hartree
        scf.max_cycle = self.config.max_cycle
        scf.chkfile = None  # a file written in each cycle that nobody reads
        return scf

    def _converged(self, molecule: Any) -> tuple[Any, int]:
        """Climb the ladder; return the converged calculation and the rungs it took."""
        scf = self._mean_field(molecule)
        scf.kernel()
        if scf.converged:
            return scf, 1
        log.info("plain SCF not converged in %d cycles; trying second-order SCF", self.config.max_cycle)
        if _second_order(scf, self.config.max_cycle):
            return scf, 2
        damped = self._mean_field(molecule)
        damped.damp, damped.level_shift, damped.max_cycle = DAMPING, LEVEL_SHIFT_HARTREE, DAMPED_CYCLES
        damped.kernel()
        scf = self._mean_field(molecule)
        scf.mo_coeff, scf.mo_occ, scf.e_tot = damped.mo_coeff, damped.mo_occ, damped.e_tot
        if _second_order(scf, self.config.max_cycle):
            return scf, 3
        raise LabellingFailure(
            SCF_NOT_CONVERGED,
            f"The SCF did not converge to {self.config.conv_tol_hartree:g} Hartree: not with DIIS in "
            f"{self.config.max_cycle} cycles, not with second-order steps, not with damping and level shift. "
            "Raise labelling.labeller.max_cycle, or check charge and multiplicity of this structure.",
            attempts=3,
        )


def _needs_grid_response(config: PyscfConfig) -> bool:
    """Whether forces include the motion of the integration grid with the atoms.

    They then are the exact derivative of the energy, at about the same cost. It pays on coarse
    grids and for meta-GGAs, whose net force is large without it. On finer grids the error is small either way, and
    without it the net force stays an independent check of the label, so it is left out.
    """
    from pyscf.dft import libxc

    return config.grid_level < 3 or libxc.xc_type(config.xc) == "MGGA"


def _second_order(scf: Any, max_cycle: int) -> bool:
    """Go on from the orbitals of ``scf`` with second-order steps; the result is put into ``scf``."""
    newton = scf.newton()
    newton.max_cycle = max_cycle
    newton.kernel(scf.mo_coeff, scf.mo_occ)
    for name in ("converged", "e_tot", "mo_coeff", "mo_occ", "mo_energy"):
        setattr(scf, name, getattr(newton, name))
    return bool(scf.converged)
