"""The compiled library as Python sees it: its structures, and a network's description in them."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_double, c_int, c_int32, c_int64, c_void_p
from functools import cache
from typing import TYPE_CHECKING, Any

from dubito.model.fused.compiler import CompilationError, load_library
from dubito.model.fused.paths import Coupling, couplings
from dubito.model.fused.source import Specification, write_source
from dubito.model.irreps import SCALAR
from dubito.model.linear import NORMALISED_SILU, NORMALISED_TANH, Weight

if TYPE_CHECKING:
    from dubito.model.interaction import Interaction


class _Fields(Structure):
    """Shows its fields by name in ``_fields_``; these mirror ``c/network.h``."""


def _structure(name: str, **fields: Any) -> type[Structure]:
    return type(name, (_Fields,), {"_fields_": list(fields.items())})


def _many(kind: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


CPairs = _structure(
    "CPairs",
    **_many(c_void_p, "first neighbor harmonics"),
    stride=c_int64,
    **_many(c_void_p, "knot spline spline_slope spline_tangent harmonics_tangent"),
    tangent_stride=c_int64,
    tangent_start=c_int64,
    sums=c_void_p,
    sums_start=c_int64,
)
CPath = _structure("CPath", **_many(c_int32, "coupling source message step"))
CTarget = _structure(
    "CTarget", **_many(c_int32, "dim kind gate component source message inputs width mapped mix connect")
)
CLayer = _structure(
    "CLayer",
    **{"in": c_int32},
    **_many(c_int32, "out messages mapped n_paths n_targets n_sources mix"),
    paths=POINTER(CPath),
    targets=POINTER(CTarget),
    sources=POINTER(c_int32),
)
CMatrix = _structure(
    "CMatrix",
    **_many(c_int32, "blocks inputs outputs"),
    scale=c_double,
    value=c_void_p,
    member_stride=c_int64,
    gradient=c_void_p,
)
CNetwork = _structure(
    "CNetwork",
    **_many(c_int32, "n_layers n_matrices n_species n_knots"),
    layers=POINTER(CLayer),
    matrices=POINTER(CMatrix),
    tables=POINTER(c_void_p),
    table_gradients=POINTER(c_void_p),
    silu_norm=c_double,
    tanh_norm=c_double,
)
CBatch = _structure(
    "CBatch",
    **_many(c_int64, "n_structures n_atoms"),
    **_many(c_void_p, "atom_ptr species"),
    pairs=CPairs,
    **_many(c_void_p, "jacobian unit vectors"),
)
CFields = _structure(
    "CFields", **_many(c_void_p, "readout features forces virial state of_features of_forces of_virial of_readout")
)


CGeometry = _structure("CGeometry", **_many(c_void_p, "harmonics jacobian length unit knot spline slope"))

# Maps of a radial network at the most, as in c/radial.c.
MOST_MAPS = 8
CRadial = _structure(
    "CRadial",
    **_many(c_int32, "n_maps n_paths"),
    widths=c_int32 * MOST_MAPS,
    weights=c_void_p * MOST_MAPS,
    member_strides=c_int64 * MOST_MAPS,
    scales=c_double * MOST_MAPS,
    gradients=c_void_p * MOST_MAPS,
    **_many(c_void_p, "table hidden"),
)


@cache
def open_library(specification: Specification) -> ctypes.CDLL:
    """Return the library of a specification; see :func:`dubito.model.fused.compiler.load_library`."""
    library = load_library(write_source(specification))
    try:
        _declare(library)
    except AttributeError as error:
        raise CompilationError(f"the compiled library lacks a function ({error})") from None
    return library


def _declare(library: ctypes.CDLL) -> None:
    for function in (library.evaluate, library.differentiate):
        function.argtypes = [POINTER(CNetwork), POINTER(CBatch), POINTER(CFields), c_int, c_int]
        function.restype = c_int
    library.make_geometry.argtypes = [c_void_p, c_int64, c_double, c_int, POINTER(CGeometry), c_int]
    library.make_geometry.restype = None
    integers = [c_int, c_int]
    library.radial_tables.argtypes = [POINTER(CRadial), *integers, c_void_p, *integers, c_double, *integers]
    library.radial_tables.restype = c_int
    library.state_elements.argtypes = [POINTER(CNetwork), c_int64, c_int64, c_int64]
    library.state_elements.restype = c_int64


class Description:
    """A network's layers in C structures.

    Attributes
    ----------
    weights : the parameters in the order of the library's matrices, the embedding last
    layers : array of ``CLayer``
    """

    def __init__(
        self, layers: list[Interaction], embedding: Weight, specification: Specification, n_species: int, n_knots: int
    ) -> None:
        self.weights: list[Weight] = []
        self._shapes: list[tuple[int, int, int, float]] = []
        found = couplings(specification.l_max, specification.parity)
        self._index = {coupling: i for i, coupling in enumerate(found)}
        self.layers = (CLayer * len(layers))(*[self._layer(layer) for layer in layers])
        channels = layers[0].n_features
        self._add(embedding, 1, n_species, channels, 1.0)
        self.n_species, self.n_knots = n_species, n_knots

    def network(self, values: list[Any], gradients: list[int], tables: list[int], of_tables: list[int]) -> Any:
        """Return the network with these parameter tensors, and addresses to put gradients."""
        matrices = (CMatrix * len(values))(
            *[
                CMatrix(*shape, value.data_ptr(), value.stride(0), gradient)
                for shape, value, gradient in zip(self._shapes, values, gradients, strict=True)
            ]
        )
        pointers = c_void_p * len(tables)
        return CNetwork(
            len(self.layers),
            len(values),
            self.n_species,
            self.n_knots,
            self.layers,
            matrices,
            pointers(*tables),
            pointers(*of_tables),
            NORMALISED_SILU,
            NORMALISED_TANH,
        )

    def _add(self, weight: Weight, blocks: int, inputs: int, outputs: int, scale: float) -> int:
        self.weights.append(weight)
        self._shapes.append((blocks, inputs, outputs, weight.scale * scale))
        return len(self.weights) - 1

    def _layer(self, layer: Interaction) -> Any:
        paths, c = layer.kernel.paths, layer.n_features
        mix = self._add(layer.mix_in, len(layer.input.irreps), c, c, 1.0)
        targets, starts = self._targets(layer)
        counted = dict.fromkeys(starts, 0)
        items = []
        for path in paths.items:
            source = layer.input.irreps[path.source]
            target = str(path.target)
            items.append(
                CPath(
                    self._index[Coupling(source.l, path.harmonic, path.target.l)],
                    layer.input.slices[path.source].start,
                    starts[target][0] + counted[target],
                    starts[target][1],
                )
            )
            counted[target] += 1
        sources = []
        for ir, components in zip(layer.input.irreps, layer.input.slices, strict=True):
            sources += [components.start, ir.dim]
        mapped = sum(t.dim * t.width for t in targets)
        return CLayer(
            layer.input.dim,
            layer.output.dim,
            paths.output.dim,
            mapped,
            len(items),
            len(targets),
            len(layer.input.irreps),
            mix,
            (CPath * len(items))(*items),
            (CTarget * len(targets))(*targets),
            (c_int32 * len(sources))(*sources),
        )

    def _targets(self, layer: Interaction) -> tuple[list[Any], dict[str, tuple[int, int]]]:
        """Return the targets, and for each its first message and the number of messages."""
        c = layer.n_features
        targets, starts = [], {}
        message = mapped = gates = 0
        for ir, component in zip(layer.output.irreps, layer.output.slices, strict=True):
            name = str(ir)
            inputs = sum(path.target == ir for path in layer.kernel.paths.items)
            width = c * (1 + layer.n_gates) if ir == SCALAR else c
            mix = self._add(layer.maps[name], 1, inputs * c, width, layer.neighbor_scale)
            connect, source = -1, -1
            if name in layer.connections:
                connect = self._add(layer.connections[name], layer.n_species, c, width, 1.0)
                source = layer.input.slices[layer.input.irreps.index(ir)].start
            kind = 0 if ir == SCALAR else 1 if ir.l == 0 else 2
            targets.append(
                CTarget(ir.dim, kind, gates, component.start, source, message, inputs, width, mapped, mix, connect)
            )
            starts[name] = (message, inputs)
            gates += kind == 2
            message += inputs * ir.dim
            mapped += ir.dim * width
        return targets, starts
