"""The compiled network as a differentiable function of its weights."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dubito.core.errors import ModelError
from dubito.model.fused.library import CBatch, CFields, CGeometry, CPairs, Description, open_library
from dubito.model.fused.radial import FusedRadial
from dubito.model.fused.source import Specification
from dubito.model.geometry import Geometry

if TYPE_CHECKING:
    from dubito.data.graphs import Graph
    from dubito.model.radial import RadialNetwork, SplineGrid

# Pairs are read this many at a time, beyond the last one too.
_PADDING = 16


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class FusedNetwork:
    """The layers of a potential, compiled.

    Parameters
    ----------
    description : layers and weights
    radial : the radial network of each layer
    specification : what the library is compiled for

    Raises
    ------
    CompilationError
        When the library can't be made or loaded here.
    """

    def __init__(self, description: Description, radial: Sequence[RadialNetwork], specification: Specification) -> None:
        self.description, self.specification = description, specification
        self.library = open_library(specification)
        self.dtype = torch.float64 if specification.double else torch.float32
        fits = FusedRadial.fits(radial, specification)
        # Taken out and put in by single operations, so that two threads never get the same memory.
        self._spare: deque[Tensor] = deque(maxlen=1)
        # None: the radial networks run in torch, the rest does not care.
        self.radial = FusedRadial(radial, self.library) if fits else None

    def borrow(self, size: int) -> Tensor:
        """Return memory for the state of a batch; what an earlier batch gave back is used again."""
        # Fresh memory is mapped page by page, which costs a large batch a fifth of its time.
        with suppress(IndexError):
            spare = self._spare.popleft()
            if size <= len(spare) <= 4 * size:
                return spare
        return torch.empty(size, dtype=self.dtype)

    def give_back(self, state: Tensor) -> None:
        """Keep memory for the next batch."""
        self._spare.append(state)

    def geometry(self, graph: Graph, grid: SplineGrid) -> Geometry:
        """Compute what :func:`dubito.model.geometry.make_geometry` does, in one pass over the pairs."""
        if graph.vectors.dtype != self.dtype:
            raise ModelError(
                f"The graph is in {graph.vectors.dtype} and the potential in {self.dtype}. Build the graph with "
                "potential.dtype; make a new Potential for another precision."
            )
        vectors = graph.vectors.contiguous()
        pairs, harmonics = len(vectors), (self.specification.l_max + 1) ** 2
        shapes = [(pairs, harmonics), (pairs, harmonics, 3), (pairs,), (pairs, 3), (pairs,), (pairs, 4), (pairs, 4)]
        made = [vectors.new_empty(shape, dtype=torch.int32 if i == 4 else None) for i, shape in enumerate(shapes)]
        pointers = CGeometry(*(tensor.data_ptr() for tensor in made))
        self.library.make_geometry(
            vectors.data_ptr(), pairs, grid.width, grid.n_intervals, ctypes.byref(pointers), torch.get_num_threads()
        )
        return Geometry(*made)

    def __call__(
        self, graph: Graph, geometry: Geometry, readout: Tensor | None, tables: list[Tensor], *, virial: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the last features, and with ``readout`` forces and virial.

        Parameters
        ----------
        readout : (M, N, C), the derivative of the structures' energies by the last features; None: features only
        tables : of each layer, the knots of its radial functions, (M, P, K, C)
        virial : also return the virial

        Returns
        -------
        features (M, N, C); forces (M, N, 3) in eV/Å; virial (M, n, 3, 3) in eV
            Once differentiable by weights, tables and readout.
        """
        weights = [weight.value for weight in self.description.weights]
        arguments = [*weights, *tables, *([] if readout is None else [readout])]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments):
            forces = readout is not None
            if readout is None:
                readout = tables[0].new_zeros(len(tables[0]), graph.n_atoms, self.specification.channels)
            sweep: Any = _Sweep.apply
            out = sweep(self, graph, geometry, virial and forces, len(weights), readout, *weights, *tables)
            return (out[0], out[1], out[2]) if forces else (out[0], None, None)
        call = CompiledCall(self, graph, geometry, weights, tables, readout)
        return call.evaluate(virial=virial and readout is not None, keep=False)


class CompiledCall:
    """One batch and its tensors; they must live as long as the C code holds their addresses."""

    def __init__(
        self,
        network: FusedNetwork,
        graph: Graph,
        geometry: Geometry,
        weights: Sequence[Tensor],
        tables: Sequence[Tensor],
        readout: Tensor | None,
    ) -> None:
        self.network, self.graph = network, graph
        self.state: Tensor | None = None
        numbers = [*weights, *tables, graph.vectors, *([] if readout is None else [readout])]
        numbers += [getattr(geometry, name) for name in ("harmonics", "jacobian", "unit", "spline", "spline_slope")]
        # C gets addresses and would read them as they are.
        if any(tensor.dtype != network.dtype or tensor.device.type != "cpu" for tensor in numbers):
            raise ModelError(
                f"The compiled network needs graph, geometry and weights in {network.dtype} on the CPU. Make a new "
                "Potential for another precision, and set model.kernel to auto for a GPU."
            )
        if len(geometry.knot) != len(graph.vectors):
            raise ModelError("The geometry belongs to another graph: their numbers of pairs differ.")
        # Both calls must lay out the state for the same number of threads.
        self.threads = torch.get_num_threads()
        self.weights = [w if not len(w) or w[0].is_contiguous() else w.contiguous() for w in weights]
        self.tables = [table.contiguous() for table in tables]
        self.readout = None if readout is None else readout.contiguous()
        self.members = len(self.tables[0])
        pair_of_atom = torch.zeros(graph.n_atoms + 1, dtype=torch.int64, device=graph.center.device)
        torch.cumsum(torch.bincount(graph.center, minlength=graph.n_atoms), 0, out=pair_of_atom[1:])
        self._held = [
            pair_of_atom,
            graph.neighbor.contiguous(),
            torch.nn.functional.pad(geometry.harmonics.T, (0, _PADDING)).contiguous(),
            geometry.knot.contiguous(),
            geometry.spline.contiguous(),
            geometry.spline_slope.contiguous(),
            graph.atom_ptr.contiguous(),
            graph.species.contiguous(),
            geometry.jacobian.contiguous(),
            geometry.unit.contiguous(),
            graph.vectors.contiguous(),
        ]
        first, neighbor, harmonics, knot, spline, slope, ptr, species, jacobian, unit, vectors = (
            tensor.data_ptr() for tensor in self._held
        )
        pairs = CPairs(first, neighbor, harmonics, self._held[2].stride(0), knot, spline, slope)
        self.batch = CBatch(graph.n_structures, graph.n_atoms, ptr, species, pairs, jacobian, unit, vectors)

    def __del__(self) -> None:
        # Only now: a graph that is kept may be differentiated again.
        state: Tensor | None = getattr(self, "state", None)
        if state is not None:
            self.network.give_back(state)

    def evaluate(self, *, virial: bool, keep: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return features, forces and virial; keep the state for :meth:`differentiate`."""
        library, atoms, like = self.network.library, self.graph.n_atoms, self.tables[0]
        c_network = self._describe(None, None)
        features = like.new_empty(self.members, atoms, self.network.specification.channels)
        forces = like.new_empty(self.members, atoms, 3) if self.readout is not None else None
        strain = like.new_empty(self.members, self.graph.n_structures, 3, 3) if virial else None
        if keep:
            size = library.state_elements(ctypes.byref(c_network), self.members, self.graph.n_structures, atoms)
            self.state = self.network.borrow(size)
        fields = CFields(*map(_address, (self.readout, features, forces, strain, self.state)))
        self._run(library.evaluate, c_network, fields)
        return features, forces, strain

    def differentiate(
        self, of_features: Tensor | None, of_forces: Tensor | None, of_virial: Tensor | None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the derivatives of a loss by readout, weights and tables from those by the outputs."""
        like, atoms = self.tables[0], self.graph.n_atoms
        shape = (self.members, atoms, self.network.specification.channels)
        of_features = like.new_zeros(shape) if of_features is None else of_features.contiguous()
        of_forces = like.new_zeros(self.members, atoms, 3) if of_forces is None else of_forces.contiguous()
        of_virial = None if of_virial is None else of_virial.contiguous()
        of_readout = like.new_empty(shape)
        of_weights = [torch.empty_like(w, memory_format=torch.contiguous_format) for w in self.weights]
        of_tables = [torch.empty_like(table) for table in self.tables]
        c_network = self._describe(of_weights, of_tables)
        derivatives = (self.readout, None, None, None, self.state, of_features, of_forces, of_virial, of_readout)
        self._run(self.network.library.differentiate, c_network, CFields(*map(_address, derivatives)))
        return of_readout, of_weights, of_tables

    def _describe(self, of_weights: list[Tensor] | None, of_tables: list[Tensor] | None) -> Any:
        none = [0] * len(self.weights)
        return self.network.description.network(
            self.weights,
            [w.data_ptr() for w in of_weights] if of_weights else none,
            [table.data_ptr() for table in self.tables],
            [table.data_ptr() for table in of_tables] if of_tables else [0] * len(self.tables),
        )

    def _run(self, function: Any, network: Any, fields: Any) -> None:
        pointers = (ctypes.byref(network), ctypes.byref(self.batch), ctypes.byref(fields))
        if function(*pointers, self.members, self.threads):
            raise ModelError(
                f"There was not enough memory to evaluate {self.graph.n_structures} structures with "
                f"{self.graph.n_atoms} atoms at once. Lower training.batch_size, or ask for more memory."
            )


class _Sweep(torch.autograd.Function):
    """Features, forces and virial, and the gradient of what is made of them."""

    @staticmethod
    def forward(
        ctx: Any,
        network: FusedNetwork,
        graph: Graph,
        geometry: Geometry,
        virial: bool,
        n_weights: int,
        readout: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        call = CompiledCall(network, graph, geometry, tensors[:n_weights], tensors[n_weights:], readout)
        out = call.evaluate(virial=virial, keep=True)
        # The tensors themselves are saved too, so that a change in place is noticed.
        ctx.save_for_backward(readout, *tensors)
        ctx.call = call
        ctx.set_materialize_grads(False)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *derivatives: Tensor | None) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors
        of_readout, of_weights, of_tables = ctx.call.differentiate(*derivatives)
        return (None, None, None, None, None, of_readout, *of_weights, *of_tables)
