"""Section: force error against uncertainty, and what the uncertainty is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dubito.metrics.reduce import atom_norm
from dubito.reporting import bins, charts, points
from dubito.reporting.blocks import Chart, Figure, Section, Table, Text
from dubito.reporting.collect import Campaign
from dubito.reporting.evaluated import Evaluated
from dubito.reporting.points import Pair
from dubito.reporting.words import milli, number, percent

_CALIBRATION = ("atoms", "Spearman", "68 %", "95 %", "area", "mean")
_SMALLEST_MEV = 0.01  # smaller errors and uncertainties are drawn here, since a log axis has no zero


def doubt(campaign: Campaign) -> Section:
    """Return the section on error against uncertainty."""
    sets = _unseen(campaign)
    table = _calibration_table(campaign)
    if not sets:
        return Section(
            "doubt",
            "Error against uncertainty",
            [Text("No structure unseen by its model has been measured yet."), table],
        )
    finding = _finding(campaign)
    low, high = bins.decades(*points.pooled(sets))
    domain = (10.0**low, 10.0**high)
    n_points = points.how_many(sets)
    if n_points > campaign.config.report.max_points:
        x, y = points.pooled(sets)
        spec = charts.doubt_density(bins.grid_counts(x, y, bins.decade_edges(x, y)), domain)
    else:
        spec = charts.doubt(points.rows(sets, "uncertainty", "error"), list(sets), domain)
    figure = Figure(
        id="error-uncertainty",
        title="Does it know when it does not know?",
        finding=finding,
        caption="Each atom: length of its force error against the length expected from its uncertainty (one standard "
        f"deviation, {_drivers(campaign)}), meV/Å; n = {n_points:,} atoms ({points.in_words(sets, 'atom')}). "
        "'New' holds the structures of all iterations, each judged by the model that had not seen it; the others are "
        "judged by the latest model. On the dashed line error equals uncertainty; points above it are overconfident.",
        charts=[Chart(spec, finding)],
        table=table,
        half=True,
    )
    return Section("doubt", "Error against uncertainty", [figure, _calibration_now(campaign)])


def _unseen(campaign: Campaign) -> dict[str, Pair]:
    """Return uncertainty and error of each unseen atom by set, (N,) meV/Å each."""
    parts: dict[str, list[tuple[Evaluated, str]]] = {
        "new": [(i.new, i.driver) for i in campaign.iterations if i.new is not None and len(i.new)],
        **{name: [(campaign.sets[name], campaign.method)] for name in ("valid", "test") if name in campaign.sets},
    }
    found: dict[str, Pair] = {}
    for name, members in parts.items():
        pairs = [
            (atom_norm(part.of(method)["forces_uncertainty"]), atom_norm(part.force_difference(method)))
            for part, method in members
            if "forces_uncertainty" in part.predictions.get(method, {})
        ]
        if pairs:
            x, y = points.finite(*(1000 * np.concatenate([pair[i] for pair in pairs]) for i in (0, 1)))
            if len(x):
                found[name] = np.maximum(x, _SMALLEST_MEV), np.maximum(y, _SMALLEST_MEV)
    return found


def _drivers(campaign: Campaign) -> str:
    """Name the methods whose uncertainty is drawn."""
    names = list(dict.fromkeys(iteration.driver for iteration in campaign.iterations))
    if len(names) == 1:
        return f"method '{names[0]}'"
    return f"by the method that drove each iteration: {', '.join(names)}"


def _finding(campaign: Campaign) -> str:
    for iteration in reversed(campaign.iterations):
        measured = iteration.metrics["uncertainty"].get(iteration.driver, {})
        for name in ("new", "test", "valid"):
            found = measured.get(name)
            if found and found.get("coverage_95") is not None:
                share = found["coverage_95"]
                word = "overconfident" if share < 0.9 else "about right" if share < 0.985 else "rather too careful"
                return (
                    f"On the {points.set_word(name)} structures of iteration {iteration.index} the uncertainty ranks "
                    f"force errors with Spearman {number(found['spearman_force'], 2)}, and its 95 % interval "
                    f"covers {percent(share)} of the force components: {word}."
                )
    return "No calibration has been measured yet."


def _calibration_now(campaign: Campaign) -> Table:
    """Return what the driving method's uncertainty is worth in the latest iteration."""
    measured = campaign.last.metrics["uncertainty"].get(campaign.method, {})
    return Table(
        caption=f"Ranking and calibration in iteration {campaign.last.index}",
        headers=("set", *_CALIBRATION),
        rows=[(_set_words(name), *_calibration_cells(measured[name])) for name in _ordered(measured)],
        note="Spearman: rank correlation of uncertainty and force error by atom, 1 is best. 68 % and 95 %: share of "
        "force components inside that interval. Area: between observed and nominal coverage, 0 is best, 0.5 worst. "
        "Mean: of the force uncertainty of an atom, meV/Å. The uncertainty is scaled on the validation structures, so "
        "their coverage is no independent test.",
        half=True,
    )


def _calibration_table(campaign: Campaign) -> Table:
    """Return the same for every iteration and method."""
    return Table(
        caption="Ranking and calibration of every iteration and method",
        headers=("iteration", "method", "set", *_CALIBRATION),
        rows=[
            (str(iteration.index), method, _set_words(name), *_calibration_cells(by_set[name]))
            for iteration in campaign.iterations
            for method, by_set in sorted(iteration.metrics["uncertainty"].items())
            for name in _ordered(by_set)
        ],
    )


def _calibration_cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{found['n']:,}",
        number(found["spearman_force"], 2),
        percent(found["coverage_68"]),
        percent(found["coverage_95"]),
        number(found["miscalibration_area"], 2),
        milli(found["mean_uncertainty_ev_per_angstrom"]),
    )


def _ordered(by_set: Mapping[str, Any]) -> list[str]:
    """Return the names of the sets unseen in training, in the order of the legend, others last."""
    known = [name for name in charts.SETS if name in by_set and name != "train"]
    return known + [name for name in by_set if name not in charts.SETS]


def _set_words(name: str) -> str:
    return charts.SETS[name][0] if name in charts.SETS else name.replace("_", " ")
