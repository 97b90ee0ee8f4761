"""Where an SCF runs: on the CPU, or on a graphics card through gpu4pyscf (https://arxiv.org/abs/2404.09452)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np

from dubito.core.errors import EnvironmentFault
from dubito.core.logs import get_logger
from dubito.labelling.base import Array, Label

log = get_logger(__name__)

Wanted = Literal["cpu", "gpu", "auto"]

ENERGY_TOLERANCE = 1e-4
"""eV: a label from a card may differ by this from the CPU's, as may any label from a tight SCF."""
FORCE_TOLERANCE = 1e-3
"""eV/Å: the same for a component of a force."""

Atoms = list[tuple[str, list[float]]]

# Water, Å: cheap on the CPU, and known to nearly every basis. Charge and unpaired electrons follow the geometry.
_WATER: Atoms = [("O", [0.0, 0.0, 0.119]), ("H", [0.0, 0.763, -0.477]), ("H", [0.0, -0.763, -0.477])]
TRIAL = (_WATER, 0, 0)
OPEN_SHELL_TRIAL = (_WATER, 1, 1)


@dataclass(frozen=True)
class Device:
    """The device that was chosen; ``version`` is that of gpu4pyscf, empty on the CPU."""

    wanted: Wanted
    version: str = ""

    @property
    def is_gpu(self) -> bool:
        """Whether SCFs are taken to a card."""
        return bool(self.version)

    def move(self, scf: Any) -> Any:
        """Return the calculation where it is to run."""
        return scf.to_gpu() if self.is_gpu else scf


CPU = Device("cpu")


def choose_device(wanted: Wanted) -> Device:
    """Return the device for ``labelling.labeller.device``.

    Raises
    ------
    EnvironmentFault
        When a card is asked for (``gpu``) and can't be used; ``auto`` takes the CPU then and says so once.
    """
    if wanted == "cpu":
        return CPU
    try:
        return Device(wanted, _gpu4pyscf_version())
    except EnvironmentFault as fault:
        if wanted == "gpu":
            raise
        log.info("labelling on the CPU: %s", fault)
        return CPU


def _gpu4pyscf_version() -> str:
    remedy = (
        "Set labelling.labeller.device to cpu; or to auto, which takes a card where there is one, when only the "
        "machines that label have it."
    )
    try:
        cupy = import_module("cupy")
    except ImportError as error:
        raise EnvironmentFault(
            f"labelling.labeller.device asks for a GPU, but cupy can't be imported ({error}). Install gpu4pyscf for "
            f"your CUDA version (e.g. pip install gpu4pyscf-cuda12x). {remedy}"
        ) from None
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # cupy's own classes: no driver, too old a driver, a card that is lost
        raise EnvironmentFault(
            f"labelling.labeller.device asks for a GPU, but cupy can't reach one ({one_line(error)}). {remedy}"
        ) from None
    if count < 1:
        raise EnvironmentFault(f"labelling.labeller.device asks for a GPU, but cupy sees no card. {remedy}")
    try:
        gpu4pyscf = import_module("gpu4pyscf")
    except Exception as error:  # it asks the card for its properties at import
        raise EnvironmentFault(
            f"labelling.labeller.device asks for a GPU, but gpu4pyscf can't be imported ({one_line(error)}). Install "
            f"it for your CUDA version (e.g. pip install gpu4pyscf-cuda12x). {remedy}"
        ) from None
    return str(getattr(gpu4pyscf, "__version__", "unknown"))


def as_numpy(values: Any) -> Array:
    """Return an array of numpy, whether numpy or cupy made it."""
    return np.asarray(values.get() if hasattr(values, "get") else values, dtype="f8")


def disagreement(cpu: Label, gpu: Label) -> str:
    """Return how the label of a card differs beyond the tolerances, empty when it does not."""
    energy = abs(cpu.energy - gpu.energy)
    forces = float(np.abs(cpu.forces - gpu.forces).max())
    if energy <= ENERGY_TOLERANCE and forces <= FORCE_TOLERANCE:  # false for NaN
        return ""
    return (
        f"its label of a water molecule differs from the CPU's by {1e3 * energy:.3g} meV and {1e3 * forces:.3g} meV/Å; "
        f"{1e3 * ENERGY_TOLERANCE:g} meV and {1e3 * FORCE_TOLERANCE:g} meV/Å are allowed"
    )


def one_line(error: Exception) -> str:
    """Return the class and the message of an error in one line of at most 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
