"""Section: from candidates to a batch: what was rejected, where it came from, and what scoring cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dubito.reporting.blocks import Block, Section, Table, Text
from dubito.reporting.collect import Campaign, Iteration
from dubito.reporting.words import MINUS, MISSING, count, milli, number, percent, setting
from dubito.selection.reasons import REASONS

TITLE = "Selection"
CONTROL = "control"


def choosing(campaign: Campaign) -> Section:
    """Return the section on how batches were chosen."""
    explored = [iteration for iteration in campaign.iterations if iteration.index > 0]
    if not explored:
        return Section("choosing", TITLE, [Text("Candidates are chosen from iteration 1 on.")])
    blocks: list[Block] = [Text(_finding(explored[-1])), _candidates(explored)]
    tables = (_by_sampler(explored), _control_against_selected(campaign, explored))
    blocks += [table for table in tables if table is not None]
    blocks += _adaptive(explored)
    return Section("choosing", TITLE, blocks)


def reason_words(code: str) -> str:
    """Return why a candidate was rejected, in words; a code of a plug-in as it is, without underscores."""
    return REASONS[code].meaning if code in REASONS else code.replace("_", " ")


def _finding(iteration: Iteration) -> str:
    manifest = iteration.manifest
    pool, chosen = int(manifest.get("n_candidates") or 0), int(manifest.get("n_selected") or 0)
    text = f"Of {count(pool, 'candidate')} of iteration {iteration.index}, {chosen:,} were chosen to be labelled"
    if n_control := int(manifest.get("n_control") or 0):
        text += f", {n_control:,} of them at random as control"
    rejected = dict(manifest.get("rejected") or {})
    if not rejected:
        return f"{text}; none was rejected."
    cause = max(sorted(rejected), key=lambda code: rejected[code])
    return (
        f"{text}; {sum(rejected.values()):,} were rejected, most often with the reason '{reason_words(cause)}' "
        f"({rejected[cause]:,})."
    )


def _candidates(explored: Sequence[Iteration]) -> Table:
    """Return what became of the candidates, one column per iteration."""
    codes = {code for iteration in explored for code in iteration.manifest.get("rejected") or {}}
    order = [code for code in REASONS if code in codes] + sorted(codes - set(REASONS))

    def row(name: str, *keys: str) -> tuple[str, ...]:
        setting = REASONS[keys[-1]].key if keys[-1] in REASONS else MISSING
        return (name, *(_count_at(iteration.manifest, keys) for iteration in explored), setting)

    return Table(
        caption="What became of the candidates",
        headers=("candidates", *(f"iteration {iteration.index}" for iteration in explored), "decided by"),
        rows=[
            row("found", "n_candidates"),
            *(row(f"rejected: {reason_words(code)}", "rejected", code) for code in order),
            row("chosen", "n_selected"),
            row("of them control", "n_control"),
            ("left", *(_left(iteration.manifest) for iteration in explored), MISSING),
        ],
        note="The first reason that applies counts. One line per rejection in iter_*/rejected.csv. Left: "
        "they passed all gates, and others were chosen.",
    )


def _left(manifest: Mapping[str, Any]) -> str:
    taken = int(manifest.get("n_selected") or 0) + sum((manifest.get("rejected") or {}).values())
    return f"{max(0, int(manifest.get('n_candidates') or 0) - taken):,}"


def _count_at(manifest: Mapping[str, Any], keys: Sequence[str]) -> str:
    value: Any = manifest
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return f"{int(value or 0):,}"


def _by_sampler(explored: Sequence[Iteration]) -> Table | None:
    """Return where the candidates of each iteration came from, latest first."""
    rows = []
    for iteration in reversed(explored):
        pool = iteration.manifest.get("pool_scores") or {}
        of_id = dict(zip(iteration.manifest.get("ids", ()), iteration.manifest.get("strata") or (), strict=False))
        reasons = dict(zip(iteration.manifest.get("ids", ()), iteration.manifest.get("reasons", ()), strict=False))
        for name in sorted({*pool, *of_id.values()}):
            mine = [one for one, stratum in of_id.items() if stratum == name]
            control = sum(reasons.get(one) == CONTROL for one in mine)
            quantiles = (pool.get(name) or {}).get("quantiles") or ()
            rows.append(
                (
                    name or "unknown",
                    str(iteration.index),
                    f"{int((pool.get(name) or {}).get('n') or 0):,}",
                    f"{len(mine) - control:,}",
                    f"{control:,}",
                    *(number(float(np.quantile(quantiles, q))) if len(quantiles) else MISSING for q in (0.5, 0.9)),
                )
            )
    if not rows:
        return None
    return Table(
        caption="Where candidates came from, latest first",
        headers=("sampler", "iteration", "candidates", "selected", "control", "median score", "score of the 90th %"),
        rows=rows,
        note="Candidates: after gates and without duplicates. Score: what the selection ranks by.",
    )


def _control_against_selected(campaign: Campaign, explored: Sequence[Iteration]) -> Table | None:
    """Return how wrong the model was on the structures it doubted and on random ones."""
    rows = []
    for iteration in explored:
        if iteration.new is None or not len(iteration.new):
            continue
        worst = iteration.new.worst_force_error(iteration.driver)
        is_control = np.array([reason == CONTROL for reason in iteration.new.structures.text("origin/reason")], bool)
        for name, mine in (("selected", worst[~is_control]), (CONTROL, worst[is_control])):
            if len(mine):
                wrong = np.mean(~(mine <= campaign.config.selection.force_tolerance_ev_per_angstrom))
                rows.append(
                    (
                        str(iteration.index),
                        name,
                        f"{len(mine):,}",
                        milli(float(np.median(mine))),
                        milli(float(np.max(mine))),
                        percent(float(wrong)),
                    )
                )
    if not rows:
        return None
    tolerance = milli(campaign.config.selection.force_tolerance_ev_per_angstrom)
    return Table(
        caption="Are the chosen worse than random ones?",
        headers=(
            "iteration",
            "structures",
            "labelled",
            "median error meV/Å",
            "largest meV/Å",
            f"above {tolerance} meV/Å",
        ),
        rows=rows,
        note="Error: the largest force error on an atom of a structure, by the model that had not seen it. Selecting "
        "is worth something where the selected are wrong by more than the random control structures.",
    )


def _whole(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}".replace("-", MINUS)


def _adaptive(explored: Sequence[Iteration]) -> list[Block]:
    """Return what scoring with a part of the ensemble spent and saved; nothing where it is off."""
    found = [
        (iteration.index, about)
        for iteration in explored
        if isinstance(about := iteration.manifest.get("adaptive"), Mapping) and about
    ]
    if not found:
        return []
    index, last = found[-1]
    ratio = last["compute_ratio"]
    verb = "cost" if ratio is not None and ratio > 1 else "took"
    blocks: list[Block] = [
        Text(
            f"Adaptive scoring {verb} {percent(ratio)} of the model evaluations that the full score of all "
            f"{last['n']:,} candidates of iteration {index} would have taken; {last['n_escalated']:,} got it. "
            f"Guarantee: {last['guarantee']}"
        )
    ]
    if last.get("note"):
        blocks.append(Text(str(last["note"]), plain=True))
    blocks.append(
        Table(
            caption="What scoring spent and saved",
            headers=(
                "iteration", "candidates", "calibrated on", "full score", "share of the cost", "evaluations saved",
                "recall asked for",
            ),
            rows=[
                (
                    str(k),
                    f"{about['n']:,}",
                    f"{about['n_calibration']:,}",
                    f"{about['n_escalated']:,}",
                    percent(about["compute_ratio"]),
                    _whole(about["saved_evaluations"]),
                    setting(about["recall_target"]),
                )
                for k, about in found
            ],
            note="Evaluations: of one member on one candidate. Candidates without the full score keep a cheap one, "
            "below what decides.",
        )
    )  # fmt: skip
    return blocks
