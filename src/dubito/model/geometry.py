"""What a network needs of each pair of atoms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.data.graphs import Graph
from dubito.model.harmonics import SphericalHarmonics
from dubito.model.radial import SplineGrid


@dataclass(frozen=True)
class Geometry:
    """Depends on positions only, not on weights: for a training set it is computed once.

    Attributes
    ----------
    harmonics : (E, K); jacobian : (E, K, 3), their derivative by the pair's vector, 1/Å
    length : (E,) Å; unit : (E, 3)
    knot : (E,) int32, spline, spline_slope : (E, 4), see :class:`dubito.model.radial.SplineGrid`
    """

    harmonics: Tensor
    jacobian: Tensor
    length: Tensor
    unit: Tensor
    knot: Tensor
    spline: Tensor
    spline_slope: Tensor

    def select(self, pairs: Tensor) -> Geometry:
        """Return the geometry of some pairs."""
        return Geometry(*(getattr(self, name)[pairs] for name in self.__dataclass_fields__))


def make_geometry(graph: Graph, harmonics: SphericalHarmonics, grid: SplineGrid) -> Geometry:
    """Compute harmonics, splines and their derivatives for all pairs."""
    length = torch.linalg.vector_norm(graph.vectors, dim=1)
    unit = graph.vectors / length[:, None]
    values, jacobian = harmonics(unit, length)
    return Geometry(values, jacobian, length, unit, *grid.locate(length))
