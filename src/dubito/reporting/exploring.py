"""Section: what became of walkers, climbs and structures that samplers made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dubito.reporting.blocks import Block, Section, Table, Text
from dubito.reporting.collect import Campaign, Iteration
from dubito.reporting.words import percent
from dubito.selection.reasons import REASONS

WALKER, CLIMB, STRUCTURE = "walker", "climb", "structure"
ARE: Final[Mapping[str, str]] = {
    "langevin": WALKER,
    "biased_langevin": WALKER,
    "adversarial": CLIMB,
    "normal_modes": STRUCTURE,
    "rattle": STRUCTURE,
    "dihedral_scan": STRUCTURE,
}
"""What a sampler counts; of others (plug-ins, campaigns of before) it is not known."""
COMPLETED = "completed"
MEANINGS: Final[Mapping[str, str]] = {
    "uncertainty": "doubt of an atom's force above the sampler's stop_uncertainty_ev_per_angstrom",
    "reached": "climbed to target_error_ev_per_angstrom: a candidate",
    "not_reached": "did not get to target_error_ev_per_angstrom within n_steps: no candidate",
    "above_target": "started from a structure as doubtful as target_error_ev_per_angstrom already: no candidate",
}
"""What the codes mean that the gates of the selection don't have."""


def exploring(campaign: Campaign) -> Section:
    """Return the section on how exploring ended."""
    explored = [iteration for iteration in campaign.iterations if iteration.index > 0]
    if not explored:
        return Section("exploring", "Exploring", [Text("Exploring starts in iteration 1.")])
    blocks: list[Block] = [Text(_finding(explored[-1]))]
    rows = _rows(explored)
    if rows:
        blocks.append(
            Table(
                "How walkers, climbs and structures ended",
                ("sampler", "of", "code", "meaning", *(f"iteration {iteration.index}" for iteration in explored)),
                rows,
                note="Candidates are the structures that walkers pass on their way, climbs that reached their target, "
                "and made structures that are sane.",
            )
        )
    return Section("exploring", "Exploring", blocks)


def meaning(sampler: str, code: str) -> str:
    """Return what a code means, a sentence's end; of plug-ins the code without underscores."""
    if code == COMPLETED:
        return {WALKER: "made all its steps", STRUCTURE: "made, and sane: a candidate"}.get(
            ARE.get(sampler, ""), "nothing was wrong with it"
        )
    if code in MEANINGS:
        return MEANINGS[code]
    return REASONS[code].meaning if code in REASONS else code.replace("_", " ")


def _rows(explored: Sequence[Iteration]) -> list[tuple[str, ...]]:
    keys = list(dict.fromkeys((s, c) for i in explored for s, stops in i.stops.items() for c in sorted(stops)))
    order = list(dict.fromkeys(sampler for sampler, _ in keys))
    return [
        (
            sampler or "all",
            _of(sampler, 2),
            code,
            meaning(sampler, code),
            *(f"{iteration.stops.get(sampler, {}).get(code, 0):,}" for iteration in explored),
        )
        for sampler, code in sorted(keys, key=lambda key: order.index(key[0]))
    ]


def _of(sampler: str, n: int) -> str:
    word = ARE.get(sampler)
    if word is None:
        return "walker or structure" if n == 1 else "walkers or structures"
    return word if n == 1 else f"{word}s"


def _finding(iteration: Iteration) -> str:
    """Return how most ended, sampler by sampler."""
    said = []
    for sampler, stops in iteration.stops.items():
        total = sum(stops.values())
        if not total:
            continue
        code = max(sorted(stops), key=lambda reason: stops[reason])
        name = f" of {sampler}" if sampler else ""
        said.append(
            f"{stops[code]:,} of {total:,} {_of(sampler, total)}{name} ({percent(stops[code] / total)}) ended with the "
            f"code '{code}' ({meaning(sampler, code)})"
        )
    if not said:
        return f"How exploring ended is not recorded for iteration {iteration.index}."
    return f"In iteration {iteration.index}, {'; '.join(said)}."
