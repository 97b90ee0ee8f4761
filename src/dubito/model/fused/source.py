"""The C source of a network's library: generated tensor products between hand-written parts."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from dubito.model.fused.harmonics import write_harmonics
from dubito.model.fused.paths import write_paths

# Vectors as wide as the widest registers; compilers split them where the machine's are narrower.
_VECTOR_BYTES = 64


@dataclass(frozen=True)
class Specification:
    """What a library is compiled for: everything else of a network is data to it."""

    l_max: int
    parity: bool
    channels: int
    double: bool

    @property
    def lanes(self) -> int:
        """Channels in one vector: the largest power of two that divides the channels and fits a register."""
        widest = _VECTOR_BYTES // (8 if self.double else 4)
        return min(widest, self.channels & -self.channels)


def write_source(specification: Specification) -> str:
    """Return the C source."""
    defines = {
        "T": "double" if specification.double else "float",
        "DOUBLE": int(specification.double),
        "CHANNELS": specification.channels,
        "LANES": specification.lanes,
        "HARMONICS": (specification.l_max + 1) ** 2,
    }
    head = "".join(f"#define {name} {value}\n" for name, value in defines.items())
    head += "#ifdef _OPENMP\n#include <omp.h>\n#endif\n"
    folder = files("dubito.model.fused") / "c"
    text = {name: (folder / name).read_text() for name in ("vector.h", "linear.h", "arena.h", "network.h", "gate.h")}
    network = (folder / "network.c").read_text().replace('#include "gate.h"\n', text["gate.h"])
    geometry, radial, driver = ((folder / name).read_text() for name in ("geometry.c", "radial.c", "driver.c"))
    paths = write_paths(specification.l_max, specification.parity)
    harmonics = write_harmonics(specification.l_max)
    heads = [text["vector.h"], text["linear.h"], text["arena.h"], text["network.h"]]
    return "\n".join([head, *heads, harmonics, geometry, radial, paths, network, driver])
