"""The screen: lines of text, each with the weight it has for a hurried reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from textwrap import wrap

from dubito.cli.status.problems import AGAIN, OPEN, OVER, Problem
from dubito.cli.status.quality import Certificate, Quality
from dubito.cli.status.situation import driver_words
from dubito.cli.status.standing import RunningJob, Standing
from dubito.cli.status.words import ago, clip, clock, counted, duration, hours, one_line

WIDTH, HEIGHT = 80, 40
_INDENT = "  "
# What the stages are called in the line that shows how far an iteration is.
_SHORT = {
    "explore_structures": "explore",
    "score_candidates": "score",
    "select_batch": "select",
    "predict_batch": "predict batch",
    "label_structures": "label",
    "build_dataset": "dataset",
    "train_ensemble": "train",
    "merge_ensemble": "merge",
    "fit_uncertainty": "fit",
    "predict_structures": "predict",
    "choose_driver": "choose",
}
PLAIN, STRONG, GOOD, BAD, DIM = "", "bold", "green", "red", "dim"


@dataclass(frozen=True)
class Line:
    """One line; ``style`` only repeats what its words say."""

    text: str
    style: str = PLAIN


@dataclass(frozen=True)
class _Room:
    """How many entries of each list are shown."""

    jobs: int
    queued: int
    ended: int
    rows: int
    problems: int
    # Lines of the cause of each problem, and whether there are empty lines and explanations.
    cause: int = 3
    is_airy: bool = True


_ROOMS = (
    _Room(8, 4, 3, 8, 4),
    _Room(6, 3, 2, 6, 3),
    _Room(4, 2, 2, 4, 2),
    _Room(3, 2, 1, 3, 2, 2),
    _Room(2, 1, 1, 2, 1, 1, is_airy=False),
    _Room(1, 1, 0, 1, 1, 1, is_airy=False),
)


def screen(standing: Standing, width: int = WIDTH, height: int = HEIGHT) -> list[Line]:
    """Return the lines of the screen, ``height`` of them and ``width`` wide at most; the last say what to do next.

    Only the path of a log may be wider, since it is copied.
    """
    width = max(60, width)
    following = [Line(part, STRONG) for part in _wrapped(f"Next: {standing.advice.words}", width)]
    lines: list[Line] = []
    for room in _ROOMS:
        air = [Line("")] if room.is_airy else []
        lines = _lines(standing, width, room, air)
        if len(lines) + len(air) + len(following) <= height:
            return [*lines, *air, *following]
    return [*lines[: max(1, height - len(following))], *following]


def _lines(s: Standing, width: int, room: _Room, air: list[Line]) -> list[Line]:
    parts = [
        _headline(s, width),
        [*_now(s, width, room), *_queued(s, width, room), *_ended(s, width, room)],
        _labels(s, width),
        [*_quality(s.quality, width, room), *(_plan(s, width) if room.is_airy else ()), *_driver(s, width)],
        [*_cost(s, width), *_forecast(s, width)],
        _problems(s, width, room),
    ]
    lines: list[Line] = []
    for part in filter(None, parts):
        lines += [*(air if lines else []), *part]
    return [replace(line, text=line.text.rstrip()) for line in lines]


def _wrapped(text: str, width: int, indent: str = _INDENT) -> list[str]:
    """Break a text at spaces; a word that is longer than a line (a path) stays whole."""
    return wrap(one_line(text), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


# --- where it stands ----------------------------------------------------------------------------------


def _headline(s: Standing, width: int) -> list[Line]:
    style = GOOD if s.situation.is_running else BAD if s.situation.state in _BAD else STRONG
    first = _wrapped(f"{s.campaign}: {s.situation.words}. {s.situation.reason}".rstrip(), width)
    lines = [Line(text, style if i == 0 else PLAIN) for i, text in enumerate(first)]
    words = driver_words(s.snakemake, s.time)
    if not s.situation.is_running and s.last_sign:
        words += f"{', ' if words else ''}last sign of life {ago(s.last_sign, s.time)}"
    lines += [Line(text) for text in _wrapped(words, width)] if words else []
    if s.iteration is None:
        return lines
    limit = "" if s.max_iterations is None else f" of {s.max_iterations}"
    lines += [Line(text) for text in _wrapped(f"iteration {s.iteration}{limit}: {_steps(s)}", width)]
    return lines


_BAD = ("killed", "failed", "orphaned", "unseen", "paused")


def _steps(s: Standing) -> str:
    """Say what of the iteration is done, under way and to come."""
    then = "then" if any(step.state in ("running", "waiting") for step in s.steps) else "next"
    groups = (("done", "", " done"), ("running", "now ", ""), ("waiting", "queued ", ""), ("next", f"{then} ", ""))
    parts = []
    for state, before, after in groups:
        names = [_SHORT.get(step.stage, step.stage) for step in s.steps if step.state == state]
        if names:
            parts.append(f"{before}{', '.join(names)}{after}")
    return "; ".join(parts)


def _now(s: Standing, width: int, room: _Room) -> list[Line]:
    lines = [Line(text, GOOD) for job in s.running[: room.jobs] for text in _wrapped(_job(job, s), width)]
    rest = Counter(job.stage for job in s.running[room.jobs :])
    if rest:
        names = ", ".join(f"{n} {stage}" for stage, n in rest.most_common())
        lines.append(Line(clip(f"now: and {counted(rest.total(), 'more job')} ({names})", width), GOOD))
    if not s.running and s.situation.state == "running" and not s.queue.pending:
        lines.append(Line("now: between two jobs", DIM))
    return lines


def _job(job: RunningJob, s: Standing) -> str:
    text = f"now: {job.title} for {duration(job.seconds)}"
    if job.done is not None and job.progress == "epoch":
        text += f", epoch {job.done}" + (f" of {job.of}" if job.of else "")
    if job.done is not None and job.progress == "labels":
        text += f", {job.done}" + (f" of {job.of}" if job.of else "") + " labels"
        text += f", {job.failed} failed" if job.failed else ""
    where = f"Slurm {job.slurm_job} on {job.host}" if job.slurm_job else "" if job.is_seen else job.host
    if not job.is_seen:
        where += f"{', ' if where else ''}not visible from here, last sign {ago(job.last_sign, s.time)}"
    return f"{text} ({where})" if where else text


def _queued(s: Standing, width: int, room: _Room) -> list[Line]:
    # What can never start comes first: somebody has to act.
    jobs = sorted(s.queue.pending, key=lambda job: (not job.never, not job.held))
    lines = []
    for job in jobs[: room.queued]:
        where = "" if job.iteration is None else f", iteration {job.iteration}"
        name = f"{job.stage} {job.part}".strip()
        text = f"queued: {name}{where} (Slurm {job.slurm_job}) {one_line(job.words).replace('{id}', job.slurm_job)}"
        lines += [Line(part, BAD if job.never else PLAIN) for part in _wrapped(text, width)]
    rest = len(jobs) - room.queued
    if rest > 0:
        lines.append(Line(f"queued: and {counted(rest, 'more job')}"))
    if s.queue_problem:
        lines += [Line(clip(f"queue: not shown, {one_line(s.queue_problem)}", width))]
    return lines


def _ended(s: Standing, width: int, room: _Room) -> list[Line]:
    lines = []
    for job in s.finished[: room.ended]:
        text = f"done {ago(job.time, s.time)}: {job.title} ({duration(job.wall_s)}) {one_line(job.text)}"
        lines.append(Line(clip(text.rstrip(), width), DIM))
    return lines


# --- what there is ------------------------------------------------------------------------------------


def _labels(s: Standing, width: int) -> list[Line]:
    labels, parts = s.labels, []
    if labels.batch is not None:
        b = labels.batch
        shards = f" ({b.shards_done} of {counted(b.shards, 'job')} done)" if b.shards > 1 else ""
        parts.append(f"batch {b.iteration}: {b.done} done, {b.failed} failed, {b.left} left of {b.of}{shards}")
    parts.append(f"{labels.total} in all, {labels.failed} failed")
    if labels.max_labels is not None:
        parts.append(f"{labels.spent} of {labels.max_labels} of the budget spent")
    lines = [Line(text) for text in _wrapped(f"labels: {'; '.join(parts)}", width)]
    if labels.reasons:
        reasons = ", ".join(f"{n} {name}" for name, n in sorted(labels.reasons.items(), key=lambda r: (-r[1], r[0])))
        lines += [Line(text) for text in _wrapped(f"failed labels: {reasons}", width)]
    return lines


def _quality(rows: Sequence[Quality], width: int, room: _Room) -> list[Line]:
    if not rows:
        return [Line("no iteration is evaluated yet", DIM)]
    last = rows[-1]
    head = f"{'iter.':>5} {'labels':>6} {'failed':>6} {'force RMSE':>16} {'control':>7} {'miss rate':>14}  barrier"
    lines = [Line(clip(head, width), STRONG)]
    if len(rows) > room.rows:
        lines.append(Line(f"{'…':>5} {counted(len(rows) - room.rows, 'earlier iteration')}", DIM))
    lines += [Line(clip(_row(row), width)) for row in rows[-room.rows :]]
    if room.is_airy and last.risk is not None and last.tolerance_ev_per_angstrom is not None:
        bound = last.miss_rate_high
        judged = "not measured yet" if bound is None else "within" if bound <= last.risk else "not yet within"
        text = (
            f"miss rate: accepted structures with a force error above {last.tolerance_ev_per_angstrom:g} eV/Å; "
            f"risk {last.risk:.0%}: {judged} ({last.n_accepted} controls)"
        )
        if last.certificate is not None:
            text = _certificate(last.certificate, last.tolerance_ev_per_angstrom, last.risk)
        lines += [Line(part, DIM) for part in _wrapped(text, width)]
    return lines


def _certificate(found: Certificate, tolerance: float, risk: float) -> str:
    text = (
        f"certificate {'holds' if found.holds else 'does not hold yet'}: {found.accepted_fraction:.0%} of the pool "
        f"accepted ({counted(found.n_control, 'control')})"
    )
    if found.accepted_fraction:
        text += (
            f", chosen so that at most {risk:.0%} of these are expected to have a force error above {tolerance:g} eV/Å"
        )
    return text + ("; it has drifted since the iteration before" if found.drifted else "")


def _plan(s: Standing, width: int) -> list[Line]:
    if s.plan is None:
        return []
    needed = "over twice the labels of its last point" if s.plan.labels is None else f"about {s.plan.labels} labels"
    text = (
        f"plan: a force RMSE of {1e3 * s.plan.target_ev_per_angstrom:.0f} meV/Å takes {needed} "
        f"(out of reach with a probability of {s.plan.probability_unreachable:.0%})"
    )
    return [Line(part, DIM) for part in _wrapped(text, width)]


def _row(row: Quality) -> str:
    value, control = row.force_rmse_ev_per_angstrom, row.control_force_rmse_ev_per_angstrom
    force = "-" if value is None else f"{1e3 * value:.0f} meV/Å {row.force_rmse_set}"
    apart = "-" if control is None else f"{1e3 * control:.0f}"
    miss = "-"
    if row.miss_rate is not None and row.miss_rate_high is not None:
        miss = f"{row.miss_rate:.0%} (<= {row.miss_rate_high:.0%})"
    barriers = ", ".join(f"{one_line(name)} {1e3 * error:+.0f} meV" for name, error in row.barrier_error_ev.items())
    return f"{row.iteration:>5} {row.labels:>6} {row.failed:>6} {force:>16} {apart:>7} {miss:>14}  {barriers or '-'}"


def _driver(s: Standing, width: int) -> list[Line]:
    if s.driver is None:
        return []
    text = f"driver: {s.driver.name}. {s.driver.reason}".rstrip()
    return [Line(part) for part in _wrapped(clip(one_line(text), 2 * width - 10), width)]


# --- what it costs ------------------------------------------------------------------------------------


def _cost(s: Standing, width: int) -> list[Line]:
    cost = s.cost
    text = (
        f"cost so far: {hours(cost.cpu_hours)} CPU h ({hours(cost.dft_cpu_hours)} of them labels), "
        f"{hours(cost.gpu_hours)} GPU h, at work for {duration(3600 * cost.wall_hours)}"
    )
    lines = [Line(part) for part in _wrapped(text, width)]
    lost = []
    if cost.lost_jobs:
        gpu = f" and {hours(cost.lost_gpu_hours)} GPU h" if cost.lost_gpu_hours else ""
        known = cost.lost_jobs > cost.lost_unknown_jobs
        took = f"{hours(cost.lost_cpu_hours)} CPU h{gpu} of that in " if known else ""
        unknown = f" ({cost.lost_unknown_jobs} of them for nobody knows how long)" if cost.lost_unknown_jobs else ""
        lost.append(f"{took}{counted(cost.lost_jobs, 'job')} without result{unknown}")
    if cost.epochs_repeated:
        lost.append(f"{counted(cost.epochs_repeated, 'epoch')} trained twice")
    return lines + [Line(_INDENT + part) for part in _wrapped("; ".join(lost), width - 2, "")]


def _forecast(s: Standing, width: int) -> list[Line]:
    f = s.forecast
    if f is None:
        return []
    gpu = f", {hours(f.gpu_hours)} GPU h" if f.gpu_hours else ""
    text = (
        f"rest, at most {counted(f.iterations_left, 'iteration')} and {counted(f.labels_left, 'label')}: "
        f"{_roughly(f.based_on_iterations)} {hours(f.cpu_hours)} CPU h{gpu}, "
        f"{duration(3600 * f.wall_hours)} at this pace"
    )
    if f.deviation is not None:
        text += f" (iterations so far: within {f.deviation:.0%} of this reckoning)"
    if f.not_measured:
        text += f"; without {', '.join(f.not_measured)}, not measured yet"
    if f.batch_wall_hours:
        text += f"; this batch {duration(3600 * f.batch_wall_hours)}"
    return [Line(part) for part in _wrapped(text, width)]


def _roughly(iterations: int) -> str:
    return "roughly" if iterations > 1 else "very roughly"


# --- what went wrong ----------------------------------------------------------------------------------


def _problems(s: Standing, width: int, room: _Room) -> list[Line]:
    stuck = [problem for problem in s.problems if problem.fate in (OPEN, AGAIN)]
    lines: list[Line] = []
    for problem in stuck[::-1][: room.problems]:
        lines += _problem(problem, s.time, width, room.cause)
    if len(stuck) > room.problems:
        lines.append(Line(f"and {counted(len(stuck) - room.problems, 'more job')} without result", BAD))
    over = [problem for problem in s.problems if problem.fate == OVER]
    if over:
        kinds = Counter(_kind(problem) for problem in over)
        words = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        text = f"made good: {words}; the last, {over[-1].title}, {ago(over[-1].time, s.time)}"
        lines += [Line(part, DIM) for part in _wrapped(text, width)]
    return lines


def _problem(problem: Problem, now: float, width: int, cause_lines: int) -> list[Line]:
    after = "" if problem.after_s is None else f" after {duration(problem.after_s)}"
    again = "; it runs again" if problem.fate == AGAIN else ""
    when = f"{'started' if problem.after_s is None else 'at'} {clock(problem.time, now)}{after}"
    head = f"{problem.kind}: {problem.title} {when}{again}"
    style = BAD if problem.fate == OPEN else PLAIN
    lines = [Line(part, style) for part in _wrapped(head, width)]
    cause = wrap(one_line(problem.cause), width - 3, break_on_hyphens=False)
    if len(cause) > cause_lines:
        cause = [*cause[: cause_lines - 1], f"{cause[cause_lines - 1]}…"]
    lines += [Line(_INDENT + part) for part in cause]
    if problem.log:
        lines.append(Line(f"{_INDENT}log: {one_line(problem.log)}"))
    if problem.slurm_log:
        lines.append(Line(f"{_INDENT}Slurm's: {problem.slurm_log}"))
    return lines


def _kind(problem: Problem) -> str:
    if problem.kind == "died":
        return problem.cause.split(" (")[0]
    return problem.kind
