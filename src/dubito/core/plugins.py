"""Plug-ins by name: dubito's own in a literal table, those of other packages as entry points.

Nothing is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from dubito.core.errors import ConfigError, unknown_name


def known_names(own: Iterable[str], group: str) -> tuple[str, ...]:
    """Return dubito's own names and those installed under an entry-point group."""
    return tuple(dict.fromkeys([*own, *(point.name for point in entry_points(group=group))]))


@dataclass(frozen=True)
class Registry:
    """The plug-ins of one kind.

    Attributes
    ----------
    kind : what one of them is called in messages
    own : ``module:Class`` by name; a name of dubito's own can't be taken by another package
    group : entry-point group of other packages
    """

    kind: str
    own: Mapping[str, str]
    group: str

    def known(self) -> dict[str, str]:
        """Return ``module:Class`` by name, of all packages."""
        return {point.name: point.value for point in entry_points(group=self.group)} | dict(self.own)

    def load(self, name: str) -> Any:
        """Import and return the class called ``name``.

        Raises
        ------
        ConfigError
            When there is none.
        """
        # Entry points are looked through only for names that are not dubito's own.
        where = self.own.get(name) or self.known().get(name)
        if where is None:
            raise ConfigError(unknown_name(self.kind, name, self.known()))
        module, _, attribute = where.partition(":")
        return getattr(import_module(module), attribute)
