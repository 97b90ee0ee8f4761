"""Section on energy profiles: every iteration's curve, and the barrier it gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubito.metrics.profile import EnergyProfile
from dubito.reporting import bins, charts
from dubito.reporting.blocks import Chart, Figure, Section, Table, Text
from dubito.reporting.collect import Campaign
from dubito.reporting.words import count, milli, number

Array = NDArray[Any]
Story = Sequence[tuple[int, int, EnergyProfile]]
"""Iteration, labels and profile, in order."""


def energy_profiles(campaign: Campaign) -> Section:
    """Return the section on the energy profiles of the campaign."""
    names = [profile.name for profile in campaign.last.profiles]
    if not names:
        return Section("profiles", "Energy profiles", [Text("The configuration names no energy profile.")])
    blocks = []
    for position, name in enumerate(names):
        story = [
            (iteration.index, iteration.known_labels, profile)
            for iteration in campaign.iterations
            for profile in iteration.profiles
            if profile.name == name
        ]
        blocks += [_curves(story, position, _labeller(campaign)), _barriers(story, position)]
    return Section("profiles", "Energy profiles", blocks)


def _labeller(campaign: Campaign) -> str:
    """Name who made the reference."""
    labeller = campaign.config.labelling.labeller
    return f"PySCF ({labeller.xc}/{labeller.basis})" if labeller.kind == "pyscf" else f"the {labeller.kind} labeller"


def _curves(story: Story, position: int, labeller: str) -> Figure:
    index, _, last = story[-1]
    common, own = _domain(story), _domain(story[-1:])
    axis = f"{last.coordinate_label} ({last.coordinate_unit})" if last.coordinate_unit else last.coordinate_label
    drawn = []
    for number_, labels, profile in story:
        large = number_ == index
        text = (
            f"Iteration {number_}, {count(labels, 'label')}: largest error along the {profile.name} profile "
            f"{milli(profile.max_error)} meV."
        )
        title = f"Iteration {number_} · {count(labels, 'label')}"
        drawn.append(
            Chart(
                charts.profile(_rows(profile), own if large else common, axis, small=not large), text, title, not large
            )
        )
    spread = last.uncertainty()
    band = (
        "the band is ± 2 standard deviations of the members' relative energies"
        if spread is not None
        else "without members there is no band"
    )
    return Figure(
        id=f"profile-{position}",
        title=f"Profile '{last.name}'",
        finding=_finding(story),
        caption=f"Energy above the profile's minimum structure, meV, along {axis}; n = {len(last.coordinate)} points "
        f"labelled by {labeller} and never trained on; {band}. The small panels share one axis; what "
        "lies far outside is cut off.",
        charts=drawn,
        table=Table(
            caption=f"Profile '{last.name}' in iteration {index}, meV",
            headers=(axis, "reference", "prediction", "error", "2σ"),
            rows=[
                (
                    number(row["coordinate"]),
                    number(row["reference"], 4),
                    number(row["predicted"], 4),
                    number(row["error"], sign=True),
                    number(row["half"]),
                )
                for row in _rows(last)
            ],
        ),
    )


def _rows(profile: EnergyProfile) -> list[dict[str, Any]]:
    reference = 1000 * profile.relative(profile.reference)
    predicted = 1000 * profile.relative(profile.predicted)
    spread = profile.uncertainty()
    rows: list[dict[str, Any]] = []
    for i in np.argsort(profile.coordinate, kind="stable"):
        half = None if spread is None else 2000 * float(spread[i])
        rows.append(
            {
                "coordinate": float(profile.coordinate[i]),
                "reference": float(reference[i]),
                "predicted": float(predicted[i]),
                "error": float(predicted[i] - reference[i]),
                "half": half,
                "low": None if half is None else float(predicted[i]) - half,
                "high": None if half is None else float(predicted[i]) + half,
            }
        )
    return rows


def _domain(story: Story) -> tuple[float, float]:
    """Return a common energy range, meV: all of the last iteration, and at most that much around it.

    An early model may be wrong by electronvolts; drawn in full it would flatten everything else.
    """
    last, everything = _drawn(story[-1:]), _drawn(story)
    low, high = bins.span(last)
    height = high - low
    return max(float(everything.min()) - 0.04 * height, low - height), min(
        float(everything.max()) + 0.04 * height, high + height
    )


def _drawn(story: Story) -> Array:
    """Return all finite energies drawn for some iterations, bands included, meV."""
    keys = ("reference", "predicted", "low", "high")
    values = [row[key] for _, _, profile in story for row in _rows(profile) for key in keys if row[key] is not None]
    drawn: Array = np.array([value for value in values if np.isfinite(value)], dtype="f8")
    return drawn


def _finding(story: Story) -> str:
    index, labels, last = story[-1]
    spread = last.barrier_uncertainty
    doubt = "" if spread is None else f" ± {milli(spread)} meV (one standard deviation of the members)"
    text = (
        f"After {count(labels, 'label')} (iteration {index}) the predicted barrier is {milli(last.barrier_predicted)}"
        f"{doubt or ' meV'}, against a reference of {milli(last.barrier_reference)} meV: "
        f"{milli(last.barrier_error, sign=True)} meV off"
    )
    if len(story) > 1:
        first_index, _, first = story[0]
        text += f"; iteration {first_index} was {milli(first.barrier_error, sign=True)} meV off"
    return text + "."


def _barriers(story: Story, position: int) -> Figure:
    rows: list[dict[str, Any]] = []
    for index, _, profile in story:
        error, spread = 1000 * profile.barrier_error, profile.barrier_uncertainty
        half = None if spread is None else 2000 * spread
        low, high = (None, None) if half is None else (error - half, error + half)
        rows.append({"iteration": index, "error": error, "low": low, "high": high})
    inside = sum(row["low"] is not None and row["low"] <= 0 <= row["high"] for row in rows)
    best = min(rows, key=lambda row: float(abs(row["error"])))
    finding = (
        f"The smallest barrier error, {number(best['error'], sign=True)} meV, was reached in iteration "
        f"{best['iteration']}; the reference lies within ± 2σ in {inside} of {count(len(rows), 'iteration')}."
    )
    name = story[-1][2].name
    return Figure(
        id=f"barrier-{position}",
        title=f"Barrier error of '{name}'",
        finding=finding,
        caption="Predicted minus reference barrier, meV; bars are ± 2 standard deviations of the members' barriers; "
        f"n = {count(len(rows), 'iteration')}.",
        charts=[Chart(charts.barrier_errors(rows), finding)],
        table=Table(
            caption=f"Barrier of '{name}' by iteration, meV",
            headers=("iteration", "labels", "reference", "prediction", "error", "1σ", "largest error along it"),
            rows=[
                (
                    str(index),
                    f"{labels:,}",
                    milli(profile.barrier_reference, 4),
                    milli(profile.barrier_predicted, 4),
                    milli(profile.barrier_error, sign=True),
                    milli(profile.barrier_uncertainty),
                    milli(profile.max_error),
                )
                for index, labels, profile in story
            ],
        ),
    )
