"""Section: predictions of the latest model against the reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dubito.data.formula import formula_keys
from dubito.data.structures import Structures
from dubito.metrics.errors import per_atom, rmse
from dubito.reporting import bins, charts, points
from dubito.reporting.blocks import Block, Chart, Figure, Section, Text
from dubito.reporting.collect import Campaign
from dubito.reporting.geometry import composition_minimum
from dubito.reporting.points import Pair
from dubito.reporting.words import number


def parity(campaign: Campaign) -> Section:
    """Return the section of predictions against references by the latest model."""
    if not campaign.sets:
        return Section("parity", "Predictions against references", [Text("No predictions have been written yet.")])
    lowest = composition_minimum(Structures.concatenate([part.structures for part in campaign.sets.values()]))
    energies: dict[str, Pair] = {}
    forces: dict[str, Pair] = {}
    for name, part in campaign.sets.items():
        said, n_atoms = part.means(campaign.method), part.structures.n_atoms
        zero = np.array([lowest[key] for key in formula_keys(part.structures)])
        energies[name] = (
            1000 * per_atom(part.structures.energy - zero, n_atoms),
            1000 * per_atom(said["energy"] - zero, n_atoms),
        )
        forces[name] = 1000 * part.structures.forces.ravel(), 1000 * said["forces"].ravel()
    common = f"by the model of iteration {campaign.last.index}"
    blocks: list[Block] = [
        _parity_figure(
            "energy-parity", "Energies", energies, "meV/atom", "energy", campaign.config.report.max_points,
            f"Energy per atom above the lowest label of the same composition, {common}",
        ),
        _parity_figure(
            "force-parity", "Force components", forces, "meV/Å", "force", campaign.config.report.max_points,
            f"Cartesian force components, {common}",
        ),
    ]  # fmt: skip
    return Section("parity", "Predictions against references", blocks)


def _parity_figure(
    name: str, title: str, pairs: Mapping[str, Pair], unit: str, what: str, max_points: int, definition: str
) -> Figure:
    shown = {key: points.finite(*pair) for key, pair in pairs.items()}
    finding = _finding(shown, unit, what)
    n_points = points.how_many(shown)
    if n_points > max_points:
        unseen = {key: pair for key, pair in shown.items() if key != "train"} or shown
        x, y = points.pooled(unseen)
        edges = bins.linear_edges(x, y)
        spec = charts.parity_density(bins.grid_counts(x, y, edges), (float(edges[0]), float(edges[-1])), unit)
        drawn = f"counts of n = {len(x):,} points ({points.in_words(unseen, 'point')})"
    else:
        domain = bins.span(*(values for pair in shown.values() for values in pair)) if n_points else (0.0, 1.0)
        spec = charts.parity(points.rows(shown, "reference", "predicted"), list(shown), domain, unit)
        drawn = f"n = {n_points:,} points ({points.in_words(shown, 'point')})"
    return Figure(
        id=name,
        title=title,
        finding=finding,
        caption=f"{definition}, {unit}; {drawn}. On the dashed line prediction equals reference.",
        charts=[Chart(spec, finding)],
        half=True,
    )


def _finding(shown: Mapping[str, Pair], unit: str, what: str) -> str:
    judged = next((name for name in ("test", "valid", "train") if len(shown.get(name, ((),))[0])), None)
    if judged is None:
        return f"No finite {what} has been predicted."
    reference, predicted = shown[judged]
    size = np.abs(predicted - reference)
    return (
        f"On {points.set_word(judged)} structures the {what} RMSE is {number(rmse(predicted, reference))} {unit}; "
        f"nine in ten errors are below {number(float(np.quantile(size, 0.9)))} {unit}."
    )
