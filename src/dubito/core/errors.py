"""Errors that are the user's to mend: one paragraph each, with the remedy.

Every class below means "the input, the machine or the calculation is at fault, not the program".
The command line prints the message alone and exits with 2; anything else is a bug and exits with 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class DubitoError(Exception):
    """A fault whose message says what was found, what was expected and what to do."""

    exit_code = 2


class ConfigError(DubitoError, ValueError):
    """A configuration that can't be used."""


class DataError(DubitoError, ValueError):
    """A file or array that does not hold what it should."""


class LabelError(DubitoError, ValueError):
    """A structure that can't be labelled with the requested method."""


class ModelError(DubitoError, ValueError):
    """A model file or a request to a model that does not fit."""


class StorageError(DubitoError, OSError):
    """A file that could not be written or read; what was there before is untouched."""


class EnvironmentFault(DubitoError, RuntimeError):
    """Something this machine lacks or that stands in the way of a run."""


class MemoryFault(EnvironmentFault):
    """The memory ran out; on a cluster the next attempt asks for more."""


class CampaignPaused(DubitoError, RuntimeError):
    """A campaign that can't go on before a person has decided something.

    Attributes
    ----------
    iteration : where it stands
    labels : ``done``, ``failed`` and ``reused`` so far
    """

    def __init__(self, reason: str, *, iteration: int, labels: Mapping[str, int]) -> None:
        super().__init__(reason)
        self.iteration = iteration
        self.labels = dict(labels)


def nearest(name: str, options: Iterable[str]) -> str | None:
    """Return the option closest to ``name``, or None when nothing is near."""
    found = difflib.get_close_matches(str(name), [str(o) for o in options], n=1, cutoff=0.5)
    return found[0] if found else None


def unknown_name(kind: str, found: str, options: Iterable[str]) -> str:
    """Compose the message for a name that is not among ``options``."""
    options = sorted(str(o) for o in options)
    guess = nearest(found, options)
    hint = f" Did you mean '{guess}'?" if guess else ""
    return f"'{found}' is not a known {kind}.{hint} Known: {', '.join(options)}."
