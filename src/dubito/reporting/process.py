"""Sections on what the campaign did: selected structures, failures, cost, settings."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from dubito.reporting import charts
from dubito.reporting.blocks import Chart, Code, Figure, Section, Table, Text
from dubito.reporting.collect import Campaign, Failure
from dubito.reporting.cost import hours, labelling_cpu_s
from dubito.reporting.words import MISSING, count, milli, number, percent, seconds

MOST_ROWS = 300
MOST_FAILURES = 100


def selected(campaign: Campaign) -> Section:
    """Return the section on the selected structures, latest first."""
    rows = sorted(campaign.selected, key=lambda row: (-row.iteration, -(row.score or 0.0)))
    by_reason: dict[str, int] = {}
    for row in rows:
        by_reason[row.reason] = by_reason.get(row.reason, 0) + 1
    kinds = ", ".join(f"{n} {reason}" for reason, n in sorted(by_reason.items(), key=lambda item: -item[1]))
    highest = max((r.energy_above_minimum for r in rows if r.energy_above_minimum is not None), default=None)
    text = f"{count(len(rows), 'structure')} selected so far ({kinds or 'none'})"
    if highest is not None:
        text += f"; the highest label lies {milli(highest)} meV above the lowest of its composition"
    table = Table(
        caption="Selected structures",
        headers=(
            "id", "iteration", "reason", "score", "sampler", "trajectory", "label", "meV above minimum",
            "smallest distance Å",
        ),
        rows=[
            (
                row.id[:8],
                str(row.iteration),
                row.reason,
                number(row.score),
                row.sampler or MISSING,
                row.trajectory or MISSING,
                "done" if row.labelled else "failed",
                milli(row.energy_above_minimum),
                number(row.smallest_distance),
            )
            for row in rows[:MOST_ROWS]
        ],
        note="Score: what the selection ranked by, before the label was known. Energies are labels, above the lowest "
        "label of the same composition."
        + (f" The latest {MOST_ROWS} of {len(rows):,}; all in iter_*/selection.json." if len(rows) > MOST_ROWS else ""),
    )  # fmt: skip
    return Section("selected", "Selected structures", [Text(text + "."), table])


def failures(campaign: Campaign) -> Section:
    """Return the section on structures that could not be labelled."""
    found = list(campaign.failures)
    if not found:
        done = campaign.last.metrics["labels"]["total"]
        return Section(
            "failures", "Failures", [Text(f"Every selected structure was labelled: {done:,} labels, no failure.")]
        )
    table = Table(
        caption="Structures without a label",
        headers=("id", "iteration", "reason", "score", "message"),
        rows=[
            (f.id[:8], str(f.iteration), _spaced(f.reason), number(f.score), f.message)
            for f in found[::-1][:MOST_FAILURES]
        ],
        note="They are in no dataset."
        + (f" The latest {MOST_FAILURES} of {len(found):,}." if len(found) > MOST_FAILURES else ""),
    )
    return Section("failures", "Failures", [Text(_failure_finding(campaign, found)), table])


def _failure_finding(campaign: Campaign, found: Sequence[Failure]) -> str:
    text = f"{len(found):,} of {count(len(campaign.selected), 'selected structure')} could not be labelled."
    failed = [f.score for f in found if f.score is not None]
    done = [row.score for row in campaign.selected if row.labelled and row.score is not None]
    if failed and done:
        a, b = statistics.median(failed), statistics.median(done)
        text += (
            f" Their median score is {number(a)} against {number(b)} of those labelled, so what is missing is "
            f"{'more' if a > b else 'no more'} doubtful than what is there."
        )
    return text


def cost(campaign: Campaign) -> Section:
    """Return the section on time spent."""
    if not campaign.costs:
        return Section("cost", "Cost", [Text("No finished stage is recorded in progress.jsonl.")])
    reports = [report for iteration in campaign.iterations for report in iteration.shard_reports]
    total = hours(campaign.costs, reports, campaign.reference_cpu_s)
    stages: dict[str, list[float]] = {}
    for item in campaign.costs:
        row = stages.setdefault(item.stage, [0.0, 0.0])
        row[0] += item.wall_s
        row[1] += item.cpu_s
    dearest = max(stages, key=lambda name: stages[name][0])
    wall = sum(row[0] for row in stages.values())
    labels = campaign.last.metrics["labels"]["total"]
    finding = (
        f"All jobs together took {seconds(wall)} of wall time and {seconds(3600 * total['cpu_hours'])} of processor "
        f"time; {dearest} took {percent(stages[dearest][0] / wall if wall else 0.0)} of the wall time"
    )
    labelling = labelling_cpu_s(reports)
    if labels and labelling:
        finding += f", and a label cost {seconds(labelling / labels)} of processor time on average"
    rows = [{"stage": name, "wall_s": row[0], "cpu_s": row[1]} for name, row in stages.items()]
    figure = Figure(
        id="cost-by-stage",
        title="Time by stage",
        finding=finding + ".",
        caption=f"Wall time of all finished jobs, summed, s; n = {sum(item.jobs for item in campaign.costs):,} jobs. "
        "Jobs that ran side by side count each; a killed job is not counted.",
        charts=[Chart(charts.stage_bars(rows), finding)],
        table=Table(
            caption="Time by stage and iteration",
            headers=("stage", "iteration", "jobs", "wall s", "processor s"),
            rows=[
                (
                    item.stage,
                    MISSING if item.iteration is None else str(item.iteration),
                    f"{item.jobs:,}",
                    number(item.wall_s),
                    number(item.cpu_s),
                )
                for item in campaign.costs
            ],
        ),
    )
    return Section("cost", "Cost", [figure])


def settings(campaign: Campaign) -> Section:
    """Return the section with the resolved configuration."""
    return Section("configuration", "Configuration", [Code("Resolved configuration (YAML)", campaign.config_text)])


def origins(campaign: Campaign) -> Section:
    """Return the section with versions and hashes."""
    return Section(
        "versions",
        "Versions and hashes",
        [
            Table("Software that wrote this report", ("package", "version"), list(campaign.versions.items())),
            Table(
                f"Inputs of iteration {campaign.last.index}",
                ("what", "SHA-256, first 16 digits"),
                list(campaign.hashes.items()),
            ),
        ],
    )


def _spaced(name: str) -> str:
    return name.replace("_", " ")
