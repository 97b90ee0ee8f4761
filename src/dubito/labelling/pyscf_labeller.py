"""Kohn-Sham labels of molecules from PySCF (https://doi.org/10.1063/5.0006074)."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np

from dubito.config.label_noise import force_noise
from dubito.config.labelling import PyscfConfig
from dubito.core.errors import EnvironmentFault
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
from dubito.labelling.device import (
    CPU,
    OPEN_SHELL_TRIAL,
    TRIAL,
    Atoms,
    Device,
    as_numpy,
    choose_device,
    disagreement,
    one_line,
)
from dubito.labelling.pyscf_checks import check_basis, check_functional, core_potentials
from dubito.labelling.scf_ladder import LADDER, climb

log = get_logger(__name__)

VERSION = 1
"""Raised when a change here alters labels."""

LOUD = 0.001
"""eV/Å: more noise of the numerical settings than this is worth a warning."""

# What the code version of a label names when a card made it.
_ON_CARD = "gpu4pyscf"

# What decides whether a label is had, or where it is made, but not what it is.
_EFFORT = ("max_cycle", "max_net_force_ev_per_angstrom")
_NOT_SETTINGS = ("kind", "device", "early_abort", *_EFFORT)


class PyscfLabeller(Labeller):
    """RKS for singlets, UKS otherwise; density fitting, analytic gradient.

    An SCF that does not converge climbs a ladder (:mod:`dubito.labelling.scf_ladder`). Nothing unconverged leaves
    this class. On a graphics card only plain DIIS and its gradient run; what it can't do climbs on the CPU. Labels
    from both are interchangeable: before the first one a card has to reproduce the CPU's label of a water molecule.
    """

    name: ClassVar[str] = "pyscf"

    def __init__(self, config: PyscfConfig, *, threads: int = 1) -> None:
        """Check the functional, find the device and claim ``threads`` threads.

        Raises
        ------
        LabelError
            When PySCF does not know the functional, or has no gradient for it.
        EnvironmentFault
            When ``device`` is gpu and no card can be used.
        """
        from pyscf import lib

        check_functional(config.xc)
        lib.num_threads(threads)
        self.config = config
        self.device = choose_device(config.device)
        self._trusted: set[bool] = set()
        self._say_noise()
        self.full_grid_gradient = _needs_grid_response(config)

    def _say_noise(self) -> None:
        noise, config = force_noise(self.config), self.config
        if noise is None or noise > LOUD:
            log.warning(
                "labelling.labeller: grid_level %d with conv_tol_hartree %g leaves an error of %s in forces; "
                "a model can't become better than that",
                config.grid_level,
                config.conv_tol_hartree,
                "unknown size" if noise is None else f"about {1e3 * noise:.1f} meV/Å (rms)",
            )

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
            **{key: value for key, value in values.items() if key not in _NOT_SETTINGS},
        }

    def effort(self) -> dict[str, Any]:
        """Return how far the SCF goes and how strictly it is judged.

        A label that plain DIIS gives does not depend on it. Where DIIS fails, the SCF has several solutions, and
        which one the later rungs find may depend on where they start; the label says how many rungs it took.
        ``early_abort`` counts only when it is off: failures from the time before it stand. A ladder with more rungs
        is more effort.
        """
        effort = {"ladder": LADDER, **{key: getattr(self.config, key) for key in _EFFORT}}
        return effort if self.config.early_abort else {**effort, "early_abort": False}

    def outdated(self, label: Label) -> bool:
        """Say whether a remembered label came from a later rung of an older ladder, and may be of an excited state."""
        return label.attempts > 1 and label.ladder < LADDER

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
        molecule = self._molecule(structure)
        if self.device.is_gpu:
            self._try_out(restricted=not molecule.spin)
        made = self._on_card(molecule) if self.device.is_gpu else None
        return self._computed(molecule, CPU) if made is None else made

    def _on_card(self, molecule: Any) -> Label | None:
        """Return the label that the card makes, or None when the CPU has to: no fault of a card decides a label.

        Raises
        ------
        LabellingFailure
            When the SCF does not converge; the ladder that said so was climbed on the CPU.
        """
        try:
            return self._computed(molecule, self.device)
        except LabellingFailure as failure:
            if failure.reason == SCF_NOT_CONVERGED:
                raise
            fault = str(failure)
        except Exception as error:  # its memory, a method it lacks, a card that is lost: cupy's own classes
            fault = one_line(error)
        log.warning("the GPU failed at a structure, which is labelled on the CPU: %s", fault)
        return None

    def _try_out(self, *, restricted: bool) -> None:
        """Compare the card with the CPU on water, once per kind of SCF, before the first label is made on it."""
        if restricted in self._trusted:
            return
        atoms, charge, spin = TRIAL if restricted else OPEN_SHELL_TRIAL
        try:
            molecule = self._built(atoms, charge, spin)
            on_card = self._computed(molecule, self.device)
            if _ON_CARD in on_card.code_version:
                fault = disagreement(self._computed(molecule, CPU), on_card)
            else:  # it was made by the CPU's ladder, and says nothing of the card
                fault = "its SCF of a water molecule did not converge"
        except Exception as error:  # a functional that the card can't do, memory it lacks, a library that is missing
            fault = f"its trial raised {one_line(error)}"
        if not fault:
            self._trusted.add(restricted)
        elif self.device.wanted == "gpu":
            raise EnvironmentFault(
                f"The GPU can't be trusted with {self.config.xc}/{self.config.basis}: {fault}. Set "
                "labelling.labeller.device to cpu, or update gpu4pyscf."
            )
        else:
            log.info("labelling on the CPU, since the GPU is not fit for it: %s", fault)
            self.device = CPU

    def _computed(self, molecule: Any, device: Device) -> Label:
        scf, attempts, stopped = self._converged(molecule, device)
        gradient = scf.nuc_grad_method()
        gradient.grid_response = self.full_grid_gradient
        forces = -as_numpy(gradient.kernel()) * HARTREE_EV / BOHR_ANGSTROM
        code = f"pyscf {version('pyscf')}"
        label = Label(
            energy=float(scf.e_tot) * HARTREE_EV,
            forces=forces,
            attempts=attempts,
            method=f"pyscf {self.config.xc}/{self.config.basis}",
            code_version=f"{code}, {_ON_CARD} {device.version}" if device.is_gpu and attempts == 1 else code,
            stopped=stopped,
            ladder=LADDER,
            force_noise=force_noise(self.config),
        )
        verified(label, self.config.max_net_force_ev_per_angstrom)
        label = replace(label, net_force=net_force_of(label))
        # What is left of the net force is noise of the grid that no invariant model can learn.
        label.forces[:] -= label.forces.mean(axis=0)
        return label

    def _converged(self, molecule: Any, device: Device) -> tuple[Any, int, str]:
        """Return the converged calculation, the rungs it took, and which of them were stopped."""
        if device.is_gpu:
            scf = device.move(self._mean_field(molecule))
            scf.kernel()
            if scf.converged:
                return scf, 1, ""
            log.info("plain SCF not converged on the GPU; climbing the ladder on the CPU")
        result = climb(lambda: self._mean_field(molecule), self.config.max_cycle, early_abort=self.config.early_abort)
        return result.scf, result.attempts + device.is_gpu, result.stopped

    def _molecule(self, one: Structures) -> Any:
        atoms = list(zip(symbols(one.atomic_numbers), one.positions.tolist(), strict=True))
        return self._built(atoms, int(one.charge[0]), int(one.multiplicity[0]) - 1)

    def _built(self, atoms: Atoms, charge: int, spin: int) -> Any:
        from pyscf import gto

        return gto.M(
            atom=atoms,
            unit="Angstrom",
            basis=self.config.basis,
            ecp=core_potentials(self.config.basis, sorted({symbol for symbol, _ in atoms})),
            charge=charge,
            spin=spin,
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


def _needs_grid_response(config: PyscfConfig) -> bool:
    """Whether forces include the motion of the integration grid with the atoms.

    They then are the exact derivative of the energy, at about the same cost. It pays on coarse
    grids and for meta-GGAs, whose net force is large without it. On finer grids the error is small either way, and
    without it the net force stays an independent check of the label, so it is left out.
    """
    from pyscf.dft import libxc

    return config.grid_level < 3 or libxc.xc_type(config.xc) == "MGGA"
