"""How many operations the network needs, counted from its paths; and where they go.

    python benchmarks/flops.py

Writes benchmarks/results/flops.json and prints it as one line.

Only operations the result needs are counted, each once: a kernel that computes something twice, pads, or multiplies by
zeros gets no credit for it. A multiply-add is two operations. Left out, so that a share of the peak is rather too low
than too high: the geometry of a pair (harmonics, their Jacobian, distance), the values of the radial
network at the knots of its spline (independent of the number of pairs), memory traffic, and everything in Python.

Per layer, with N atoms, E directed pairs, C channels; (k, q, d) are the components of harmonic, output and
input; a path couples an input irrep l1 with a harmonic l2 to an output irrep l3:

    forward   x' = W_in x                                        per irrep: C x C, all components
              G_qd = sum_k CG_kqd Y_k                            per pair, once for all channels, layers of equal paths
                                                                 and members
              w = spline of the distance                         4 multiply-adds per path and channel
              m_q += G_qd (w x'_d)                               per pair (q, d) that any harmonic couples
              y = W_out [m, x by species], gate(y)
    reverse   (with m, x standing for the derivatives by what the forward pass called so)
              transposed W_out, W_in and gate
              P_qd = m_q x'_d,  Z_k += CG_kqd P_qd               per coefficient that is not zero
              dE/dw = sum_k Y_k Z_k,  dE/dY_k += sum_c w Z_k     the latter not for the constant harmonic
              dE/dx'_d += G_qd (w m_q)                           not in the first layer: its features know no positions
              dE/dr += sum_c dE/dw dw/dr                         dw/dr: 4 multiply-adds
              pull on the pair = dE/dY dY/d(vector) + dE/dr unit vector, onto both atoms
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from _publish import publish

from dubito.config.model import ModelConfig
from dubito.model.irreps import SCALAR, Layout, Paths, find_paths, hidden_layout
from dubito.model.kernels.dense import coupling_tensor

# Exponential, addition, division, scale; its derivative reuses the exponential.
ACTIVATION, ACTIVATION_SLOPE = 5, 5
SPLINE = 4
PARTS = ("linear maps", "coupling", "radial weights", "convolution", "gate", "readout", "mechanics")


@dataclass(frozen=True)
class Size:
    """What is evaluated: atoms and directed pairs of all structures together."""

    atoms: int
    pairs: int


@dataclass(frozen=True)
class PathCost:
    """What one path couples."""

    source_dim: int
    harmonic_dim: int
    target_dim: int
    coefficients: int  # Clebsch-Gordan coefficients that are not zero
    couples: int  # pairs (q, d) with any of them
    used_sources: int  # input components d among them


@dataclass(frozen=True)
class Layer:
    """One interaction: its paths and what goes in and out."""

    paths: Paths
    output: Layout
    costs: tuple[PathCost, ...]
    first: bool


def layers(config: ModelConfig) -> list[Layer]:
    """Return the layers of a potential as :class:`dubito.model.potential.Potential` builds them."""
    out: list[Layer] = []
    layout, hidden = Layout((SCALAR,)), hidden_layout(config.l_max, config.parity)
    for i in range(config.n_layers):
        wanted = Layout((SCALAR,)) if i == config.n_layers - 1 else hidden
        paths = find_paths(layout, config.l_max, wanted)
        reached = Layout(tuple(ir for ir in wanted.irreps if ir in paths.targets))
        out.append(Layer(paths, reached, path_costs(paths), first=i == 0))
        layout = reached
    return out


def path_costs(paths: Paths) -> tuple[PathCost, ...]:
    """Count what each path couples."""
    nonzero = coupling_tensor(paths).abs() > 1e-12
    out = []
    for path, rows in zip(paths.items, paths.output.slices, strict=True):
        columns = paths.layout.slices[path.source]
        block = nonzero[path.harmonic**2 : (path.harmonic + 1) ** 2, rows, columns]
        couples = block.any(0)
        harmonic, target, source = block.shape
        counts = int(block.sum()), int(couples.sum()), int(couples.any(0).sum())
        out.append(PathCost(source, harmonic, target, *counts))
    return tuple(out)


def _linear(layer: Layer, c: int) -> tuple[int, int]:
    """Return multiply-adds per atom of the maps before and after the convolution."""
    before = layer.paths.layout.dim * c * c
    after = 0
    gates = sum(ir.l > 0 for ir in layer.output.irreps)
    for ir in layer.output.irreps:
        width = c * (1 + gates) if ir == SCALAR else c
        n_in = sum(path.target == ir for path in layer.paths.items)
        after += ir.dim * n_in * c * width
        if ir in layer.paths.layout.irreps:
            after += ir.dim * c * width
    return before, after


def _forward(layer: Layer, c: int, size: Size) -> dict[str, float]:
    before, after = _linear(layer, c)
    scalars = sum(ir.l == 0 for ir in layer.output.irreps)
    gated = [ir for ir in layer.output.irreps if ir.l > 0]
    per_pair = sum(path.used_sources + 2 * path.couples for path in layer.costs)
    gate = ACTIVATION * (scalars + len(gated)) + sum(ir.dim for ir in gated)
    return {
        "linear maps": 2.0 * size.atoms * (before + after),
        "radial weights": 2.0 * SPLINE * size.pairs * c * len(layer.costs),
        "convolution": float(size.pairs * c * per_pair),
        "gate": float(size.atoms * c * gate),
    }


def _reverse(layer: Layer, c: int, size: Size) -> dict[str, float]:
    before, after = _linear(layer, c)
    scalars = sum(ir.l == 0 for ir in layer.output.irreps)
    gated = [ir for ir in layer.output.irreps if ir.l > 0]
    per_pair = 0
    for path in layer.costs:
        per_pair += path.couples + 2 * path.coefficients  # P and Z
        per_pair += 2 * path.harmonic_dim  # dE/dw
        if path.harmonic_dim > 1:
            per_pair += 2 * path.harmonic_dim  # dE/dY
        if not layer.first:
            per_pair += path.target_dim + 2 * path.couples  # dE/dx'
    # Derivative by what is gated, and by its gate; then through the activations.
    gate = sum(3 * ir.dim for ir in gated) + (ACTIVATION_SLOPE + 1) * (scalars + len(gated))
    # What goes into the first layer depends on the species only: nothing is carried back through it.
    message_only = after - _connected(layer, c)
    maps = message_only if layer.first else before + after
    return {
        "linear maps": 2.0 * size.atoms * maps,
        "radial weights": (2.0 * SPLINE + 2.0) * size.pairs * c * len(layer.costs),
        "convolution": float(size.pairs * c * per_pair),
        "gate": float(size.atoms * c * gate),
    }


def _connected(layer: Layer, c: int) -> int:
    """Return the multiply-adds per atom of the self-connection."""
    gates = sum(ir.l > 0 for ir in layer.output.irreps)
    shared = [ir for ir in layer.output.irreps if ir in layer.paths.layout.irreps]
    return sum(ir.dim * c * (c * (1 + gates) if ir == SCALAR else c) for ir in shared)


def count(config: ModelConfig, size: Size, members: int = 1) -> dict[str, dict[str, float]]:
    """Count the operations of a scoring evaluation.

    Returns
    -------
    ``{"forward": {part: operations}, "reverse": {part: operations}}``, the parts being :data:`PARTS`
    """
    c, found = config.n_features, layers(config)
    forward, reverse = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0.0)
    for layer in found:
        for total, part in ((forward, _forward(layer, c, size)), (reverse, _reverse(layer, c, size))):
            for name, operations in part.items():
                total[name] += members * operations
    distinct = {layer.paths: layer.costs for layer in found}
    forward["coupling"] = 2.0 * size.pairs * sum(path.coefficients for costs in distinct.values() for path in costs)
    forward["readout"] = 2.0 * members * size.atoms * (c * config.n_latent + config.n_latent)
    # The energies are linear in the last features: their derivative is one row of weights times the species' scale.
    reverse["readout"] = float(members * size.atoms * c)
    changing = (config.l_max + 1) ** 2 - 1
    reverse["mechanics"] = float(members * size.pairs * (2 * 3 * (changing + 1) + 6))
    return {"forward": forward, "reverse": reverse}


def total(counted: dict[str, dict[str, float]]) -> float:
    """Return the sum of a count."""
    return sum(sum(parts.values()) for parts in counted.values())


def least_bytes(config: ModelConfig, size: Size, members: int = 1) -> float:
    """Return the bytes a scoring evaluation has to move if every array of atoms or pairs is read and written once.

    Features of neighbours are taken to come from a cache. Forward, per layer: features in, mixed, message,
    output; harmonics, distance and two indices of every pair. Reverse: the same again, and the derivatives beside them.
    """
    width = 4 if config.dtype == "float32" else 8
    c, amount = config.n_features, 0.0
    harmonics = (config.l_max + 1) ** 2
    for layer in layers(config):
        atoms = layer.paths.layout.dim * 2 + layer.paths.output.dim + layer.output.dim
        amount += members * 3.0 * size.atoms * c * atoms * width
        amount += 2.0 * size.pairs * ((harmonics + 1) * width + 16)
        amount += members * size.pairs * (harmonics + 1) * width
    return amount


def shares(counted: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the share of each part, forward and reverse apart, largest first."""
    everything = total(counted)
    rows = {f"{way}: {name}": n / everything for way, parts in counted.items() for name, n in parts.items() if n}
    return {name: round(share, 4) for name, share in sorted(rows.items(), key=lambda row: -row[1])}


def main() -> None:
    """Count for the benchmark's networks on one 3BPA molecule, write and print."""
    from _batches import molecules

    from dubito.data.neighbors import find_neighbors
    from dubito.data.structures import Structures

    batch = molecules(16)
    structures = Structures.build([batch.numbers] * len(batch.positions), list(batch.positions))
    pairs = len(find_neighbors(structures, 5.0).center) // len(structures)
    size, table = Size(len(batch.numbers), pairs), {}
    for l_max in (1, 2, 3):
        config = ModelConfig(l_max=l_max, r_max_angstrom=5.0)
        counted = count(config, size)
        table[f"l_max {l_max}"] = {
            "mflop_per_molecule": round(1e-6 * total(counted), 2),
            "four_members_mflop_per_molecule": round(1e-6 * total(count(config, size, 4)), 2),
            "operations_per_byte": round(total(counted) / least_bytes(config, size), 1),
            "paths": [len(layer.costs) for layer in layers(config)],
            "coefficients": [sum(path.coefficients for path in layer.costs) for layer in layers(config)],
            "shares": shares(counted),
        }
    content = {"structures": batch.name, "atoms": size.atoms, "pairs": pairs, "table": table}
    publish("flops", content)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
