"""Layout of features and the paths of a tensor product."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, order=True)
class Irrep:
    """An irreducible representation of O(3): degree ``l`` and parity ``p`` (+1 or -1)."""

    l: int  # noqa: E741 (the name the field uses)
    p: int

    @property
    def dim(self) -> int:
        """Number of components, 2l+1."""
        return 2 * self.l + 1

    def __str__(self) -> str:
        return f"{self.l}{'e' if self.p == 1 else 'o'}"


SCALAR = Irrep(0, 1)


@dataclass(frozen=True)
class Layout:
    """The irreps of a feature, each with the same number of channels, in the order of their components."""

    irreps: tuple[Irrep, ...]

    @cached_property
    def dim(self) -> int:
        """Number of components of all irreps together."""
        return sum(ir.dim for ir in self.irreps)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where the components of each irrep stand."""
        out, start = [], 0
        for ir in self.irreps:
            out.append(slice(start, start + ir.dim))
            start += ir.dim
        return tuple(out)


@dataclass(frozen=True)
class Path:
    """One way to couple a feature irrep with a harmonic of degree ``harmonic`` to an output irrep."""

    source: int  # index into the input layout
    harmonic: int
    target: Irrep


@dataclass(frozen=True)
class Paths:
    """All paths of a convolution, ordered by target, so that each target's outputs are contiguous."""

    layout: Layout
    l_max: int
    items: tuple[Path, ...]

    @cached_property
    def output(self) -> Layout:
        """Layout of the outputs: one irrep per path."""
        return Layout(tuple(path.target for path in self.items))

    @cached_property
    def targets(self) -> tuple[Irrep, ...]:
        """Distinct targets in order."""
        return tuple(sorted({path.target for path in self.items}))


def hidden_layout(l_max: int, parity: bool) -> Layout:
    """Return the irreps a network carries: both parities, or only the natural one (-1)^l."""
    irreps = [Irrep(l, p) for l in range(l_max + 1) for p in ((1, -1) if parity else ((-1) ** l,))]  # noqa: E741
    return Layout(tuple(sorted(irreps, key=lambda ir: (ir.l, -ir.p))))


def find_paths(layout: Layout, l_max: int, wanted: Layout) -> Paths:
    """Return every path from ``layout`` and harmonics up to ``l_max`` to the ``wanted`` irreps."""
    items = []
    for target in wanted.irreps:
        for source, ir in enumerate(layout.irreps):
            for harmonic in range(l_max + 1):
                allowed = abs(ir.l - harmonic) <= target.l <= ir.l + harmonic
                if allowed and ir.p * (-1) ** harmonic == target.p:
                    items.append(Path(source, harmonic, target))
    return Paths(layout, l_max, tuple(items))
