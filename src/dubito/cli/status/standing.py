"""Everything the screen says, gathered once from files, processes and Slurm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dubito.cli.status.advice import Advice, advice_of, start_command
from dubito.cli.status.cost import Cost, cost_of
from dubito.cli.status.files import CampaignFiles
from dubito.cli.status.forecast import Forecast, forecast_of
from dubito.cli.status.jobs import FINISHED, LABEL, RUNNING, TRAIN, UNSEEN, Run, judged, latest_runs, runs_of
from dubito.cli.status.labels import Labels, labels_of
from dubito.cli.status.problems import Problem, problems_of
from dubito.cli.status.quality import Method, Plan, Quality, method_of, plan_of, quality_of
from dubito.cli.status.queue import Asking, Queue, owner_of
from dubito.cli.status.situation import (
    Situation,
    Snakemake,
    decision_of,
    situation_of,
    snakemake_of,
)
from dubito.cli.status.timeline import ORDER, StageCost, Timeline, is_over, timeline_of
from dubito.cli.status.timeline import running as running_of
from dubito.cli.status.values import amount, mapping, text, whole
from dubito.core.errors import DataError

# Ended jobs worth telling.
_RECENT = 5


@dataclass(frozen=True)
class RunningJob:
    """A job under way. ``progress`` is ``epoch`` or ``labels``; ``is_seen`` is false where nobody here can tell."""

    stage: str
    iteration: int | None
    part: str
    title: str
    since: float
    seconds: float
    host: str
    pid: int | None
    slurm_job: str
    is_seen: bool
    progress: str | None
    done: int | None
    failed: int | None
    of: int | None
    last_sign: float


@dataclass(frozen=True)
class EndedJob:
    """A job that finished."""

    title: str
    time: float
    wall_s: float
    text: str


@dataclass(frozen=True)
class Step:
    """A stage of the present iteration: ``done``, ``running``, ``waiting`` or ``next``, with its jobs."""

    stage: str
    state: str
    finished: int
    running: int


@dataclass(frozen=True)
class Standing:
    """Where a campaign stands; times in seconds since 1970."""

    campaign: str
    time: float
    last_sign: float
    situation: Situation
    snakemake: Snakemake | None
    iteration: int | None
    max_iterations: int | None
    steps: list[Step]
    running: list[RunningJob]
    queue: Queue
    queue_problem: str | None
    finished: list[EndedJob]
    labels: Labels
    quality: list[Quality]
    plan: Plan | None
    driver: Method | None
    cost: Cost
    forecast: Forecast | None
    problems: list[Problem]
    advice: Advice
    is_on_slurm: bool


class Watcher:
    """Looks at one campaign, again and again; what has not changed is not read twice.

    Parameters
    ----------
    option : ``FILE`` of ``--config`` where it is not the usual one, for the commands that are shown
    base : the folder that holds ``results``

    Raises
    ------
    DataError
        When the campaign was never started here.
    """

    def __init__(self, name: str, config: str = "", base: Path = Path()) -> None:
        self.files = CampaignFiles(name, base)
        self.config = config
        if not self.files.folder.is_dir():
            option = f" --configfile {config}" if config else ""
            raise DataError(
                f"{self.files.folder} does not exist: the campaign '{name}' was not started here. "
                f"Run `snakemake --cores 2{option}`."
            )

    def ask(self) -> Asking:
        """Ask Slurm; the answer comes while other things are read."""
        return Asking(self.files.name, self.files.workdir, owner_of(self.files.folder))

    def look(self, queue: Queue, now: float | None = None) -> Standing:
        """Return where the campaign stands, given Slurm's answer."""
        now = time.time() if now is None else now
        files = self.files
        runs = judged(runs_of(files.events()), queue, now, files.last_sign)
        labels, timeline = labels_of(files, runs), timeline_of(runs, now)
        problems = problems_of(runs, files.workdir, now)
        jobs = [_running(run, files, now) for run in latest_runs(runs) if run.state in (RUNNING, UNSEEN)]
        snakemake = snakemake_of(files)
        signs = [run.said.time for run in runs] + [job.last_sign for job in jobs]
        signs += [run.last_sign for run in runs if run.last_sign is not None]
        signs += [snakemake.since] if snakemake and snakemake.since else []
        last_sign = max(signs, default=0.0)
        situation = situation_of(snakemake, runs, queue, problems, decision_of(files, runs), last_sign, now)
        on_slurm = _is_on_slurm(snakemake, runs, queue)
        current = max([*timeline.stages, *files.iterations()], default=None)
        goes_on = situation.state in ("running", "orphaned", "killed", "failed", "stopped", "unseen", "starting")
        forecast = forecast_of(timeline, labels, files.config(), _epochs(jobs)) if goes_on and timeline.stages else None
        # What is under results/ is a copy of the configuration.
        named = self.config and not self.config.startswith("results/")
        start = start_command(snakemake, f" --configfile {self.config}" if named else "", on_slurm)
        config = f" --config {self.config}" if self.config else ""
        return Standing(
            campaign=files.name,
            time=now,
            last_sign=last_sign,
            situation=situation,
            snakemake=snakemake,
            iteration=current,
            max_iterations=whole(mapping(files.config().get("campaign")).get("max_iterations")),
            steps=_steps(timeline, current, queue, labels),
            running=jobs,
            queue=queue,
            # Who does not use Slurm need not hear of its troubles.
            queue_problem=queue.problem if on_slurm else None,
            finished=_ended(runs),
            labels=labels,
            quality=quality_of(files),
            plan=plan_of(files),
            driver=method_of(files),
            cost=cost_of(runs, now),
            forecast=forecast if forecast is not None and forecast.iterations_left else None,
            problems=problems,
            advice=advice_of(situation, snakemake, queue, problems, start, files.report(), config),
            is_on_slurm=on_slurm,
        )


def _is_on_slurm(snakemake: Snakemake | None, runs: Sequence[Run], queue: Queue) -> bool:
    said = snakemake is not None and "slurm" in snakemake.command
    return said or bool(queue.jobs) or any(run.slurm_job for run in runs)


def _running(run: Run, files: CampaignFiles, now: float) -> RunningJob:
    stage, iteration, part = run.job
    # One of an earlier run says nothing of this one's time, but its labels and epochs are there.
    beat = files.heartbeat(run)
    kind, done = ("labels", whole(beat.get("done"))) if stage == LABEL else ("epoch", whole(beat.get("epoch")))
    failed = beat.get("failed")
    return RunningJob(
        stage=stage,
        iteration=iteration,
        part=part,
        title=run.title,
        since=run.began,
        seconds=max(0.0, now - run.began),
        host=text(run.value("host")),
        pid=whole(run.value("pid")),
        slurm_job=run.slurm_job,
        is_seen=run.state == RUNNING,
        progress=kind if done is not None else None,
        done=done,
        failed=len(failed) if isinstance(failed, list) else whole(failed),
        of=whole(beat.get("of")),
        last_sign=max(run.said.time, min(now, amount(beat.get("time")))),
    )


def _epochs(jobs: Sequence[RunningJob]) -> tuple[int, int] | None:
    """Return how far the slowest running training is."""
    found = [(job.done, job.of) for job in jobs if job.progress == "epoch" and job.done and job.of]
    return min(found, key=lambda pair: pair[0] / pair[1], default=None)


def _ended(runs: Sequence[Run]) -> list[EndedJob]:
    ended = [run for run in runs if run.state == FINISHED and run.end is not None]
    latest = sorted(ended, key=lambda run: run.said.time)[-_RECENT:]
    return [
        EndedJob(run.title, run.said.time, amount(run.value("wall_s")), text(run.said.raw.get("text")))
        for run in reversed(latest)
    ]


def _steps(timeline: Timeline, iteration: int | None, queue: Queue, labels: Labels) -> list[Step]:
    """Return the stages of the present iteration, those that an earlier one had included."""
    stages = timeline.stages.get(iteration, {}) if iteration is not None else {}
    known = {stage for k, row in timeline.stages.items() for stage in row if k == iteration or (iteration and k > 0)}
    # What any iteration has, and any later one.
    known |= {"select_batch", LABEL, "build_dataset", TRAIN, "merge_ensemble", "fit_uncertainty", "evaluate", "decide"}
    known |= {"explore_structures", "score_candidates"} if iteration else set()
    waiting = {job.stage for job in queue.pending if job.iteration == iteration}
    batch = labels.batch
    is_labelled = batch is not None and batch.iteration == iteration and batch.shards == batch.shards_done
    steps = []
    for stage in (stage for stage in ORDER if stage in known):
        row = stages.get(stage, StageCost())
        now = len(running_of(row))
        is_done = not now and (is_over(stages, stage) or (stage == LABEL and is_labelled))
        state = "done" if is_done else "running" if now else "waiting" if stage in waiting else "next"
        steps.append(Step(stage, state, len({run.job for run in row.runs if run.state == FINISHED}), now))
    return steps


def as_json(standing: Standing) -> dict[str, Any]:
    """Return the standing for scripts; the keys are documented in docs/running.md and stay."""
    found = asdict(standing)
    situation, queue, advice = found.pop("situation"), found.pop("queue"), found.pop("advice")
    del found["labels"]["selected"], found["labels"]["dataset"]
    if standing.labels.batch is not None:
        found["labels"]["batch"]["left"] = standing.labels.batch.left
    return {
        "state": situation["state"],
        "reason": situation["reason"],
        "is_running": situation["is_running"],
        **found,
        "queued": [job for job in queue["jobs"] if job["state"] == "PENDING"],
        "next": {"words": advice["words"], "command": advice["command"]},
    }
