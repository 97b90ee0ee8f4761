"""Why a method drives, in words; no number is rounded so far that it contradicts the sentence it stands in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dubito.config.uncertainty import AutoConfig

_DIGITS = range(2, 7)


def apart(first: float, second: float) -> tuple[str, str]:
    """Return two numbers with two decimals, or as many as tell them apart; equal up to six are said to be equal."""
    for digits in _DIGITS:
        texts = f"{first:.{digits}f}", f"{second:.{digits}f}"
        if texts[0] != texts[1]:
            return texts
    return f"{first:.2f}", f"{second:.2f}"


def switched(driver: str, row: Mapping[str, Any], table: Sequence[Mapping[str, Any]], n: int, auto: AutoConfig) -> str:
    """Say why ``row``'s method takes over; the driver's row is the first of the table."""
    own, (low, margin) = table[0]["value"], apart(row["low"], auto.margin)
    value, against = (f"{row['value']:.2f}", "nothing") if own is None else apart(row["value"], own)
    return (
        f"{row['method']} takes over from {driver}: on the latest {n} new structures its ranking brings "
        f"{value} of what a perfect one would, against {against}, and the lower end of the difference, {low}, is above "
        f"the margin of {margin}."
    )


def kept(driver: str, table: Sequence[Mapping[str, Any]], n: int, auto: AutoConfig) -> str:
    """Say why the driver stays; ``table`` holds it and those that may take over, nothing where too few were judged."""
    if not n:
        return f"{driver} drives: no new structure has been labelled and judged yet."
    if n < auto.min_structures:
        few = f"{n} newly labelled structures are fewer than the {auto.min_structures} of uncertainty.auto"
        return f"{driver} keeps driving: {few}.min_structures."
    known = [row for row in table[1:] if row["difference"] is not None]
    if not known:
        return f"{driver} keeps driving: no other method could be compared with it on the latest {n} new structures."
    best = max(known, key=lambda row: float(row["difference"]))
    if best["difference"] <= 0:
        return f"{driver} keeps driving: no other method ranked the errors of the latest {n} new structures better."
    ahead = f"{best['method']} is ahead by {apart(best['difference'], 0.0)[0]} on the latest {n} new structures"
    if best["low"] is None:
        return f"{driver} keeps driving: {ahead}, but how far that is chance can't be measured."
    low, margin = apart(best["low"], auto.margin)
    return (
        f"{driver} keeps driving: {ahead}, but the lower end of the difference, {low}, is not above the margin of "
        f"{margin}."
    )


def lost(driver: str, why: str, chosen: str) -> str:
    """Say why another method drives instead of one that could not be fitted."""
    return f"{chosen} takes over from {driver}, which could not be fitted to the latest model: {why.rstrip('.')}."


def remarks(
    driver: str, chosen: str, candidates: Sequence[str], unfitted: Mapping[str, str], flat: Sequence[str]
) -> str:
    """Say who was not considered, and that a driver ranks nothing."""
    text = ""
    left_out = [name for name in candidates if name in unfitted and name != driver]
    if left_out:
        text += f" Not fitted, so not considered: {', '.join(left_out)}."
    equal = [name for name in candidates if name in flat and name not in (driver, chosen)]
    if equal:
        text += f" Not considered, since for the latest model all atoms are doubted alike: {', '.join(equal)}."
    if chosen in flat:
        text += f" {chosen} itself doubts all atoms alike there, so it ranks nothing."
    return text
