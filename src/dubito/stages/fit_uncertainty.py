"""Fit one uncertainty method to the trained ensemble."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dubito.config.packages import how_to_install
from dubito.config.uncertainty import CONTROLS_WITHOUT_RANK, UncertaintyConfig
from dubito.core.errors import DubitoError, EnvironmentFault, ModelError, StorageError
from dubito.core.files import write_json
from dubito.core.logs import get_logger
from dubito.data.device import choose_device
from dubito.data.store import read_structures
from dubito.data.structures import Structures
from dubito.model.artifact import load_potential
from dubito.stages._unfitted import REMEDY, write_unfitted
from dubito.uncertainty.base import evaluations_of
from dubito.uncertainty.registry import method_class

log = get_logger(__name__)
Role = Literal["driver", "candidate", "spectator"]
# Standard deviations that vary by less, relatively, tell no atom from another.
FLAT = 0.01


def run(
    *,
    ensemble: Path,
    dataset: Path,
    method: str,
    uncertainty: UncertaintyConfig,
    output: Path,
    about: Path,
    seed: int,
    threads: int,
    device: str = "cpu",
    gpus: int = 0,
    role: Role = "driver",
) -> str:
    """Fit ``method`` on the training structures, calibrate it on the others (validation and control), save it.

    Parameters
    ----------
    uncertainty : only the method's own section and ``calibration`` count
    about : JSON beside the state: what the fit and a prediction cost, how it was calibrated, whether it is ``flat``
        (its standard deviations of the unseen atoms are all but equal); or ``not_fitted``, the reason
    role : the driver must be fitted. A candidate may be chosen to drive (``auto``), a spectator is only compared: where
        they can't be fitted, ``output`` says so, and the campaign goes on without them

    Raises
    ------
    ModelError, DataError
        When the driver can't be fitted.
    EnvironmentFault
        When a package is missing or broken, whoever needs it: that can be mended, and no reason to do without.
    """
    torch.set_num_threads(threads)
    structures = read_structures(dataset)
    split = np.array(structures.text("origin/split"))
    train, valid = structures[split == "train"], structures[split != "train"]
    potential = load_potential(ensemble, choose_device(device, gpus))
    start = time.process_time()
    try:
        fitted = _class(method).fit(potential, train, valid, seed=seed, config=uncertainty)
    except (EnvironmentFault, StorageError):
        raise
    except DubitoError as error:
        if role == "driver":
            raise ModelError(f"{error} The method '{method}' drives, so the campaign can't go on: {REMEDY}.") from error
        return _not_fitted(method, str(error), output, about)
    seconds = time.process_time() - start
    fitted.save(output)
    said = {**_about(fitted, potential.n_members), "flat": _is_flat(fitted, valid)}
    write_json(about, {"method": method, "fit_cpu_s": round(seconds, 3), **said})
    _warn(method, role, said)
    return _line(method, fitted, said, len(valid))


def _class(method: str) -> Any:
    """Return the class of a method.

    Raises
    ------
    EnvironmentFault
        When what it imports is missing or broken.
    """
    lacking = how_to_install(method)
    if lacking:
        raise EnvironmentFault(f"{lacking[0].upper()}{lacking[1:]}.")
    try:
        return method_class(method)
    except ImportError as error:
        raise EnvironmentFault(
            f"The uncertainty method '{method}' can't be loaded here ({error}). Install again what it imports, or take "
            f"'{method}' out of uncertainty.methods."
        ) from error


def _not_fitted(method: str, reason: str, output: Path, about: Path) -> str:
    write_unfitted(output, method, reason)
    write_json(about, {"method": method, "not_fitted": reason})
    log.warning("%s could not be fitted and is left out of this iteration: %s", method, reason)
    return f"{method} could not be fitted, left out: {reason}"


def _about(fitted: Any, n_members: int) -> dict[str, Any]:
    """Return what a fitted method gives and costs.

    ``evaluations`` is the price of a prediction by this ensemble; ``evaluations_alone`` what the method would need if
    it were the only reason for having members: a method of one network does with one.
    """
    evaluations = evaluations_of(fitted, n_members)
    extra = evaluations - n_members
    needed = n_members if getattr(fitted, "min_members", 1) > 1 else 1
    calibration = getattr(fitted, "calibration", None)
    return {
        "targets": sorted(fitted.targets),
        "is_sigma": getattr(fitted, "is_sigma", None),
        "evaluations": evaluations,
        "evaluations_alone": float(needed + extra),
        "calibration": {} if calibration is None else calibration.state()[1],
    }


def _is_flat(fitted: Any, unseen: Structures) -> bool | None:
    """Return whether a method doubts all unseen atoms alike; None where there is nothing to tell by."""
    if not len(unseen):
        return None
    said = fitted.predict(unseen).fields()
    doubt = said.get("forces_uncertainty", said.get("forces_score"))
    if doubt is None or not np.all(np.isfinite(doubt)):
        return None
    # A deviation has three equal components, which add nothing to the spread.
    return bool(np.std(doubt) <= FLAT * np.mean(np.abs(doubt)))


def _warn(method: str, role: Role, said: dict[str, Any]) -> None:
    """Tell who watches that a method which drives, or may, ranks nothing."""
    if role == "spectator" or method in CONTROLS_WITHOUT_RANK or not said["flat"]:
        return
    drives = "drives" if role == "driver" else "may drive, so it takes over from no other now"
    log.warning(
        "%s doubts all atoms alike: errors of the unseen structures don't rise with its doubt, so it ranks nothing. It "
        "%s. More validation structures, or another method, may mend it.",
        method,
        drives,
    )


def _line(method: str, fitted: Any, said: dict[str, Any], n_valid: int) -> str:
    text = f"{method} fitted, calibrated on {n_valid} structures"
    factor = getattr(fitted, "factor", None)
    if factor is not None:
        text += f", calibration factor {factor:.2f}"
    if said["flat"] and method not in CONTROLS_WITHOUT_RANK:
        text += "; it doubts all atoms alike, so it ranks nothing"
    notes = len(said["calibration"].get("notes", []))
    return f"{text}; {notes} note{'s' * (notes > 1)} on its calibration in the report" if notes else text
