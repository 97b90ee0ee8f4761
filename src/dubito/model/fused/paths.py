"""C code of the tensor product, one set of functions for each coupling (l_in, l_harmonic, l_out).

A coupling's four functions are the sweeps of the network (see ``c/network.c``):

- ``values``: sum over the neighbours j of an atom i of ``w(r_ij) (G_ij y_j)``, where ``G = CG Y(r_ij)``;
- ``gradients``: its adjoint, for energies' derivatives by features, harmonics and distances;
- ``tangents``: its directional derivative;
- ``curvatures``: the adjoint of the directional derivative, for the gradient of a loss of forces.

The adjoints run over the pairs of the atom whose *features* were gathered. The reversed pair has the same
length, and harmonics with the sign ``(-1)^l``; so nothing is scattered, and threads never meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dubito.model.tables import wigner_3j


@dataclass(frozen=True, order=True)
class Coupling:
    """Degrees of the features, the harmonic and the output."""

    source: int
    harmonic: int
    target: int

    @property
    def name(self) -> str:
        """Suffix of the C functions."""
        return f"{self.source}_{self.harmonic}_{self.target}"

    def entries(self) -> list[tuple[int, int, int, float]]:
        """Return the Clebsch-Gordan coefficients that are not zero: (harmonic, output, input, value)."""
        w3j = wigner_3j(self.source, self.harmonic, self.target) * math.sqrt(2 * self.target + 1)
        out = []
        for k in range(2 * self.harmonic + 1):
            for q in range(2 * self.target + 1):
                for d in range(2 * self.source + 1):
                    if abs(value := float(w3j[d, k, q])) > 1e-12:
                        out.append((k, q, d, value))
        return out


def couplings(l_max: int, parity: bool) -> list[Coupling]:
    """Return all couplings of degrees up to ``l_max``; without ``parity`` those of natural parity (-1)^l only."""
    degrees = range(l_max + 1)
    return [
        Coupling(a, b, c)
        for a in degrees
        for b in degrees
        for c in degrees
        if abs(a - b) <= c <= a + b and (parity or (a + b + c) % 2 == 0)
    ]


class _Writer:
    """Writes the functions of one coupling."""

    def __init__(self, coupling: Coupling) -> None:
        self.c = coupling
        self.entries = coupling.entries()
        self.pairs = sorted({(q, d) for _, q, d, _ in self.entries})
        self.sources = range(2 * coupling.source + 1)
        self.targets = range(2 * coupling.target + 1)
        self.harmonics = range(2 * coupling.harmonic + 1)

    def g(self, q: int, d: int, name: str = "g") -> str:
        return f"{name}[{self.pairs.index((q, d))}][i]"

    def contracted(self, name: str, source: str, stride: str, start: str) -> list[str]:
        """Contract the coefficients with harmonics, one pair of atoms in a lane."""
        lines = [f"T {name}[{len(self.pairs)}][EDGES] __attribute__((aligned(64)));"]
        lines.append("for (int h = 0; h < EDGES; h += EDGE_LANES) {")
        first = self.c.harmonic**2
        for k in self.harmonics:
            lines.append(f"  lvec k{k} = *(const ulvec *)({source} + {first + k} * {stride} + {start} + h);")
        for index, (q, d) in enumerate(self.pairs):
            terms = [f"(T){value!r} * k{k}" for k, q_, d_, value in self.entries if (q_, d_) == (q, d)]
            lines.append(f"  *(lvec *)(&{name}[{index}][h]) = {' + '.join(terms)};")
        return [*lines, "}"]

    def chunks(self, body: list[str], tangents: bool = False) -> list[str]:
        """Loop over atoms and their pairs, EDGES at a time."""
        head = [
            "for (int64_t n = start; n < stop; n++)",
            "for (int64_t e0 = p->first[n]; e0 < p->first[n + 1]; e0 += EDGES) {",
            "const int count = p->first[n + 1] - e0 < EDGES ? (int)(p->first[n + 1] - e0) : EDGES;",
            *self.contracted("g", "p->harmonics", "p->stride", "e0"),
        ]
        if tangents:
            head += self.contracted("gt", "p->harmonics_tangent", "p->tangent_stride", "(e0 - p->tangent_start)")
        return [*head, "for (int c = 0; c < CHANNELS; c += LANES) {", *body, "}", "}"]

    @staticmethod
    def radial(tangent: bool = False, slope: bool = False) -> list[str]:
        """Interpolate the radial weight of the pair, and its tangent or slope."""
        lines = [
            "const T *knots = table + (int64_t)p->knot[e] * CHANNELS + c;",
            "vec t0 = LOAD(knots), t1 = LOAD(knots + CHANNELS), t2 = LOAD(knots + 2 * CHANNELS), "
            "t3 = LOAD(knots + 3 * CHANNELS);",
            "const T *b = p->spline + 4 * e;",
            "vec w = b[0] * t0 + b[1] * t1 + b[2] * t2 + b[3] * t3;",
        ]
        if slope:
            lines.append("const T *bs = p->spline_slope + 4 * e;")
        if tangent:
            lines.append("const T *bs = p->spline_tangent + 4 * (e - p->tangent_start);")
        if slope or tangent:
            lines.append("vec ws = bs[0] * t0 + bs[1] * t1 + bs[2] * t2 + bs[3] * t3;")
        return lines

    def signature(self, sweep: str, arguments: str) -> list[str]:
        return [
            f"static void {sweep}_{self.c.name}(const Pairs *p, int64_t start, int64_t stop, int64_t ys, int64_t ms, "
            f"int64_t qs, {arguments}) {{"
        ]

    def sum_of(self, terms: list[str]) -> str:
        return " + ".join(terms)

    def values(self) -> list[str]:
        before = len(self.targets) < len(self.sources)
        body = ["T *to = message + n * ms + c;"]
        body += [f"vec s{q} = LOAD(to + {q} * qs);" for q in self.targets]
        body += ["for (int i = 0; i < count; i++) {", "const int64_t e = e0 + i;", *self.radial()]
        body += ["const T *from = y + p->neighbor[e] * ys + c;"]
        scale = "" if before else "w * "
        body += [f"vec y{d} = {scale}LOAD(from + {d} * CHANNELS);" for d in self.sources]
        for q in self.targets:
            terms = self.sum_of([f"{self.g(q, d)} * y{d}" for q_, d in self.pairs if q_ == q])
            body.append(f"s{q} += w * ({terms});" if before else f"s{q} += {terms};")
        body += ["}", *[f"STORE(to + {q} * qs, s{q});" for q in self.targets]]
        return [*self.signature("values", "const T *y, const T *table, T *message"), *self.chunks(body), "}"]

    def gradients(self) -> list[str]:
        sign = "-" if self.c.harmonic % 2 else ""
        first = self.c.harmonic**2
        body = ["const T *own = y + n * ys + c;", "T *to = y_adjoint + n * ys + c;"]
        body += [f"vec y{d} = LOAD(own + {d} * CHANNELS), a{d} = LOAD(to + {d} * CHANNELS);" for d in self.sources]
        body += ["for (int i = 0; i < count; i++) {", "const int64_t e = e0 + i;", *self.radial(slope=True)]
        body += ["const T *from = adjoint + p->neighbor[e] * ms + c;"]
        body += [f"vec m{q} = {sign}LOAD(from + {q} * qs);" for q in self.targets]
        started = set()
        for q, d in self.pairs:
            body.append(f"{{ vec v = m{q} * y{d};")
            for k, _, _, value in (entry for entry in self.entries if entry[1:3] == (q, d)):
                operator = "+=" if k in started else "="
                declared = f"z{k} {operator} (T){value!r} * v;"
                body.append(declared)
                started.add(k)
            body.append("}")
        inside = [f"vec z{k};" for k in self.harmonics]
        at = body.index(f"vec m0 = {sign}LOAD(from + 0 * qs);")
        body[at:at] = inside
        body.append("T *sums = p->sums + (e - p->sums_start) * (HARMONICS + 1) * LANES;")
        body += [f"ADD(sums + {first + k} * LANES, w * z{k});" for k in self.harmonics]
        along = self.sum_of([f"p->harmonics[{first + k} * p->stride + e] * z{k}" for k in self.harmonics])
        body.append(f"ADD(sums + HARMONICS * LANES, ws * ({along}));")
        body += [f"m{q} *= w;" for q in self.targets]
        for d in self.sources:
            terms = self.sum_of([f"{self.g(q, d)} * m{q}" for q, d_ in self.pairs if d_ == d])
            body.append(f"a{d} += {terms};")
        body += ["}", *[f"STORE(to + {d} * CHANNELS, a{d});" for d in self.sources]]
        arguments = "const T *y, const T *table, const T *adjoint, T *y_adjoint"
        return [*self.signature("gradients", arguments), *self.chunks(body), "}"]

    def tangents(self) -> list[str]:
        body = ["T *to = message + n * ms + c;"]
        body += [f"vec s{q} = LOAD(to + {q} * qs);" for q in self.targets]
        body += ["for (int i = 0; i < count; i++) {", "const int64_t e = e0 + i;", *self.radial(tangent=True)]
        body += ["const T *from = y + p->neighbor[e] * ys + c, *along = y_tangent + p->neighbor[e] * ys + c;"]
        for d in self.sources:
            body.append(f"vec y{d} = LOAD(from + {d} * CHANNELS);")
            body.append(f"vec v{d} = ws * y{d} + w * LOAD(along + {d} * CHANNELS);")
            body.append(f"y{d} *= w;")
        for q in self.targets:
            terms = [f"{self.g(q, d)} * v{d} + {self.g(q, d, 'gt')} * y{d}" for q_, d in self.pairs if q_ == q]
            body.append(f"s{q} += {self.sum_of(terms)};")
        body += ["}", *[f"STORE(to + {q} * qs, s{q});" for q in self.targets]]
        arguments = "const T *y, const T *y_tangent, const T *table, T *message"
        return [*self.signature("tangents", arguments), *self.chunks(body, tangents=True), "}"]

    def curvatures(self) -> list[str]:
        sign = "-" if self.c.harmonic % 2 else ""
        body = ["const T *own = y + n * ys + c, *along = y_tangent + n * ys + c;", "T *to = y_adjoint + n * ys + c;"]
        for d in self.sources:
            body.append(f"vec y{d} = LOAD(own + {d} * CHANNELS), v{d} = LOAD(along + {d} * CHANNELS);")
            body.append(f"vec a{d} = LOAD(to + {d} * CHANNELS);")
        body += ["for (int i = 0; i < count; i++) {", "const int64_t e = e0 + i;", *self.radial(tangent=True)]
        body += ["const int64_t j = p->neighbor[e] * ms + c;"]
        for q in self.targets:
            body.append(f"vec l{q} = {sign}LOAD(lambda + j + {q} * qs), m{q} = {sign}LOAD(mu + j + {q} * qs);")
        value, slope = [], []
        for q in self.targets:
            at = [d for q_, d in self.pairs if q_ == q]
            body.append(f"vec f{q} = {self.sum_of([f'{self.g(q, d)} * y{d}' for d in at])};")
            moving = [f"{self.g(q, d, 'gt')} * y{d} + {self.g(q, d)} * v{d}" for d in at]
            value.append(f"l{q} * f{q} + m{q} * ({self.sum_of(moving)})")
            slope.append(f"m{q} * f{q}")
        body.append(f"vec of_w = {self.sum_of(value)};")
        body.append(f"vec of_ws = {self.sum_of(slope)};")
        body.append("T *knots_to = table_adjoint + (int64_t)p->knot[e] * CHANNELS + c;")
        body += [f"ADD(knots_to + {k} * CHANNELS, b[{k}] * of_w + bs[{k}] * of_ws);" for k in range(4)]
        body += [f"l{q} = w * l{q} + ws * m{q}; m{q} *= w;" for q in self.targets]
        for d in self.sources:
            terms = [f"{self.g(q, d)} * l{q} + {self.g(q, d, 'gt')} * m{q}" for q, d_ in self.pairs if d_ == d]
            body.append(f"a{d} += {self.sum_of(terms)};")
        body += ["}", *[f"STORE(to + {d} * CHANNELS, a{d});" for d in self.sources]]
        arguments = (
            "const T *y, const T *y_tangent, const T *table, const T *lambda, const T *mu, T *y_adjoint, "
            "T *table_adjoint"
        )
        return [*self.signature("curvatures", arguments), *self.chunks(body, tangents=True), "}"]


def write_paths(l_max: int, parity: bool) -> str:
    """Return the C functions of all couplings up to ``l_max``, and the table that finds them."""
    found = couplings(l_max, parity)
    lines: list[str] = []
    for coupling in found:
        writer = _Writer(coupling)
        for sweep in (writer.values, writer.gradients, writer.tangents, writer.curvatures):
            lines += sweep()
    lines.append("static const Coupling couplings[] = {")
    for c in found:
        names = ", ".join(f"{sweep}_{c.name}" for sweep in ("values", "gradients", "tangents", "curvatures"))
        lines.append(f"{{{c.harmonic}, {names}}},")
    return "\n".join([*lines, "};", ""])
