"""C code of the spherical harmonics and their derivatives, pair by pair in the lanes of a vector."""

from __future__ import annotations

from dubito.model.tables import harmonic_coefficients, monomials

_AXES = "xyz"


def write_harmonics(l_max: int) -> str:
    """Return a C function of unit vectors: values and gradients of the polynomials of degree up to ``l_max``.

    ``y[k]`` and ``g[axis][k]`` are filled, ``(l_max + 1)^2`` vectors each.
    """
    exponents = monomials(l_max)
    lines = ["static inline void harmonics_of(lvec x, lvec y, lvec z, lvec *value, lvec (*gradient)[HARMONICS]) {"]
    for axis in _AXES:
        lines += [f"  const lvec {axis}0 = {{0}};", f"  const lvec {axis}1 = {axis};"]
        lines += [f"  const lvec {axis}{n} = {axis}{n - 1} * {axis};" for n in range(2, l_max + 1)]
    column, k = 0, 0
    for degree in range(l_max + 1):
        block = harmonic_coefficients(degree)
        for row in block:
            columns = zip(row, exponents[column : column + len(row)], strict=True)
            terms = [(float(c), e) for c, e in columns if abs(c) > 1e-12]
            lines.append(f"  value[{k}] = {_sum([_term(c, e) for c, e in terms])};")
            for i in range(3):
                slopes = [_term(c * e[i], tuple(n - (j == i) for j, n in enumerate(e))) for c, e in terms if e[i]]
                lines.append(f"  gradient[{i}][{k}] = {_sum(slopes)};")
            k += 1
        column += block.shape[1]
    used = [f"  (void){axis}{n};" for axis in _AXES for n in range(max(l_max, 1) + 1)]
    return "\n".join([*lines, *used, "}", ""])


def _term(coefficient: float, exponent: tuple[int, ...]) -> str:
    powers = [f"{axis}{n}" for axis, n in zip(_AXES, exponent, strict=True) if n]
    return " * ".join([f"(T){coefficient!r}", *powers]) if powers else f"((lvec){{0}} + (T){coefficient!r})"


def _sum(terms: list[str]) -> str:
    return " + ".join(terms) if terms else "(lvec){0}"
