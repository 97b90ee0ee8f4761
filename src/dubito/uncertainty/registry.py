"""The uncertainty methods by name. Third parties add theirs as entry points ``dubito.uncertainty``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from dubito.core.plugins import Registry
from dubito.uncertainty.base import UncertaintyMethod

METHODS = Registry(
    "uncertainty method",
    {
        "ensemble": "dubito.uncertainty.ensemble:EnsembleUncertainty",
        "shallow_ensemble": "dubito.uncertainty.shallow_ensemble:ShallowEnsembleUncertainty",
        "gmm": "dubito.uncertainty.mixture:MixtureUncertainty",
        "evidential": "dubito.uncertainty.evidential:EvidentialUncertainty",
        "svgp": "dubito.uncertainty.variational_gp:VariationalGpUncertainty",
        "sparse_gp": "dubito.uncertainty.sparse_gp:SparseGpUncertainty",
        "llpr": "dubito.uncertainty.last_layer:LastLayerUncertainty",
        "distance": "dubito.uncertainty.distance:DistanceUncertainty",
        "force_norm": "dubito.uncertainty.controls:ForceNormControl",
        "constant": "dubito.uncertainty.controls:ConstantControl",
        "random": "dubito.uncertainty.controls:RandomControl",
    },
    "dubito.uncertainty",
)


def method_class(name: str) -> type[UncertaintyMethod]:
    """Return the class of a method.

    Raises
    ------
    ConfigError
        When no method has this name.
    """
    return cast(type[UncertaintyMethod], METHODS.load(name))


def load_method(
    method: str, ensemble: Path, state: Path, *, threads: int | None = None, device: str = "cpu", gpus: int = 0
) -> Any:
    """Load a fitted method with its potential, ready to ``predict``.

    Parameters
    ----------
    threads : of torch; None: leave them as they are
    device, gpus : where the potential goes, see :func:`dubito.data.device.choose_device`
    """
    import torch

    from dubito.data.device import choose_device
    from dubito.model.artifact import load_potential

    if threads is not None:
        torch.set_num_threads(threads)
    return method_class(method).load(state, load_potential(ensemble, choose_device(device, gpus)))
