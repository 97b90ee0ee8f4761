"""Section: force error against the number of labels."""

from __future__ import annotations

from typing import Any

from dubito.reporting import charts
from dubito.reporting.blocks import Chart, Figure, Section, Table, Text
from dubito.reporting.collect import Campaign
from dubito.reporting.words import milli, number

FORCE_RMSE = "force_rmse_ev_per_angstrom"


def learning_curve(campaign: Campaign) -> Section:
    """Return the section on force error against labels."""
    rows = _learning_rows(campaign)
    drawn = [row for row in rows if row["rmse"] is not None and row["rmse"] > 0]
    names = [name for name in charts.SETS if any(row["name"] == name for row in drawn)]
    finding = _learning_finding(campaign)
    table = Table(
        caption="Errors of every iteration (RMSE; forces by component)",
        headers=(
            "iteration",
            "set",
            "structures",
            "labels known",
            "force meV/Å",
            "energy meV/atom",
            "worst force meV/Å",
        ),
        rows=[
            (
                str(row["iteration"]),
                str(row["set"]),
                f"{row['n']:,}",
                f"{row['labels']:,}",
                number(row["rmse"]),
                milli(row["energy"]),
                milli(row["worst"]),
            )
            for row in rows
        ],
    )
    if not drawn:
        return Section("learning", "Learning curve", [Text(finding), table])
    keys = ("labels", "rmse", "set", "iteration")
    figure = Figure(
        id="learning-curve",
        title="Force error against labels",
        finding=finding,
        caption="Root mean square error by force component, meV/Å, log axis; n in the table. 'New' are the structures "
        "of an iteration, predicted before any of them was trained on: chosen for their doubt, they are harder than "
        "the average. Validation structures stop the training early, so they flatter a little.",
        charts=[Chart(charts.learning_curve([{k: row[k] for k in keys} for row in drawn], names), finding)],
        table=table,
    )
    return Section("learning", "Learning curve", [figure])


def _learning_rows(campaign: Campaign) -> list[dict[str, Any]]:
    """Return one row per set and iteration; new structures are known to the model before."""
    rows = []
    for position, iteration in enumerate(campaign.iterations):
        metrics = iteration.metrics
        before = campaign.iterations[position - 1].known_labels if position else None
        for name in ("train", "valid", "test", "new", "control"):
            errors = metrics["errors"].get(name)
            if errors is None:
                continue
            known = before if name in ("new", "control") else iteration.known_labels
            value = errors[FORCE_RMSE]
            if known is not None:
                rows.append(
                    {
                        "name": name,
                        "set": charts.SETS[name][0],
                        "iteration": iteration.index,
                        "labels": known,
                        "n": errors["n_structures"],
                        "rmse": None if value is None else 1000 * value,
                        "energy": errors["energy_rmse_ev_per_atom"],
                        "worst": errors["force_max_ev_per_angstrom"],
                    }
                )
    return rows


def _learning_finding(campaign: Campaign) -> str:
    for name in ("test", "valid"):
        values = [
            (iteration.known_labels, iteration.metrics["errors"].get(name, {}).get(FORCE_RMSE))
            for iteration in campaign.iterations
        ]
        known = [(labels, value) for labels, value in values if value is not None]
        if not known:
            continue
        (first_labels, first), (last_labels, last) = known[0], known[-1]
        words = charts.SETS[name][0]
        if len(known) == 1:
            return f"With {first_labels} labels the force RMSE on {words} structures is {milli(first)} meV/Å."
        verb = "fell" if last < first else "rose"
        return (
            f"From {first_labels} to {last_labels} labels the force RMSE on {words} structures {verb} "
            f"from {milli(first)} to {milli(last)} meV/Å."
        )
    return "No validation or test error has been measured yet."
