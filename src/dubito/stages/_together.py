"""Several uncertainty methods of one model, whose members are evaluated once for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dubito.data.prediction import Array, Prediction
from dubito.data.structures import Structures
from dubito.stages._unfitted import fitted_only
from dubito.uncertainty.base import Predictor

Say = Callable[[Structures], Mapping[str, Mapping[str, Array]]]
"""Gives the predictions of some structures: arrays by method and field."""


def alone(method: str, predictor: Predictor) -> Say:
    """Return what a single method says."""

    def say(structures: Structures) -> Mapping[str, Mapping[str, Array]]:
        return {method: predictor.predict(structures).fields()}

    return say


class _Once:
    """Predicts with a potential and keeps the last prediction: methods ask for that of the same structures in turn."""

    def __init__(self, predict: Callable[[Structures], Prediction]) -> None:
        self._predict = predict
        self._last: tuple[Structures, Prediction] | None = None

    def __call__(self, structures: Structures) -> Prediction:
        if self._last is None or self._last[0] is not structures:
            self._last = structures, self._predict(structures)
        return self._last[1]


class Together:
    """The fitted methods of one model.

    Attributes
    ----------
    members_s, own_s : processor time (s) of the members' evaluations, and of each method on top, so far
    """

    def __init__(self, potential: Any, methods: Mapping[str, Predictor]) -> None:
        self._members, self._methods = potential.predict, methods
        self.forget()

    @property
    def names(self) -> list[str]:
        """The methods, in order."""
        return list(self._methods)

    def forget(self) -> None:
        """Begin to count the time anew: the first use of a method compiles and imports."""
        self.members_s, self.own_s = 0.0, dict.fromkeys(self._methods, 0.0)

    def __call__(self, structures: Structures) -> dict[str, dict[str, Array]]:
        """Return the predictions of all methods by field."""
        before = time.process_time()
        self._members(structures)
        self.members_s += time.process_time() - before
        said = {}
        for name, method in self._methods.items():
            before = time.process_time()
            said[name] = method.predict(structures).fields()
            self.own_s[name] += time.process_time() - before
        return said


def load_together(
    methods: list[str], ensemble: Path, states: list[Path], *, threads: int, device: str = "cpu", gpus: int = 0
) -> Together:
    """Load the methods of one model with their states, in the same order.

    Methods that could not be fitted are left out.

    Raises
    ------
    ModelError
        When a state is missing, or of another method or model, or when no method was fitted.
    """
    import torch

    from dubito.data.device import choose_device
    from dubito.model.artifact import load_potential
    from dubito.uncertainty.registry import method_class

    fitted = fitted_only(methods, states)
    torch.set_num_threads(threads)
    potential = load_potential(ensemble, choose_device(device, gpus))
    once: Any = _Once(potential.predict)
    # On the object, not on its class: the methods hold this very potential.
    object.__setattr__(potential, "predict", once)
    loaded = {name: method_class(name).load(path, potential) for name, path in fitted.items()}
    return Together(potential, loaded)
