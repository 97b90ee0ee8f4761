"""Numbers as a reader wants them: meV and meV/Å, three significant digits, a dash for what is missing."""

from __future__ import annotations

import math

MISSING = "–"
MINUS = "−"


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Return a number with ``digits`` significant digits and no exponent between 1e-4 and 1e7."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    value = float(f"{value:.{digits - 1}e}")  # rounded first: 0.0999 has another first digit than 0.1
    size = math.floor(math.log10(abs(value)))
    if not -5 < size < 7:
        text = f"{value:{'+' if sign else ''}.{digits - 1}e}"
    else:
        text = f"{value:{'+' if sign else ''},.{max(0, digits - 1 - size)}f}"
    return text.replace("-", MINUS)


def milli(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Return a value in thousandths: eV as meV, eV/Å as meV/Å."""
    return number(None if value is None else 1000 * value, digits, sign=sign)


def percent(value: float | None) -> str:
    """Return a share as a percentage."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:.1f} %" if 0 < abs(value) < 0.1 else f"{100 * value:.0f} %"


def setting(value: float) -> str:
    """Return a share that somebody chose as a percentage, without digits that nobody wrote."""
    return f"{100 * value:.6g} %"


def seconds(value: float) -> str:
    """Return a duration in the unit that suits it."""
    if value < 120:
        return f"{number(value)} s"
    if value < 7200:
        return f"{number(value / 60)} min"
    return f"{number(value / 3600)} h"


def count(n: int, word: str) -> str:
    """Return ``1 label`` or ``2 labels``."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"
