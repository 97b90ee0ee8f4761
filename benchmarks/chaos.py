"""Interrupt rehearsal campaigns at random moments, in every way we can think of, and look what was lost.

    python benchmarks/chaos.py             50 interruptions, half of them on a throw-away Slurm (needs root and Slurm)
    python benchmarks/chaos.py --short     6 interruptions on this machine
    python benchmarks/chaos.py --local     50 on this machine alone

A campaign is started, hit after some random seconds, started again, hit again, up to --hits times, then left to finish;
then the next, until there were enough. Each is compared with one that nobody touched: batches byte by byte, the
datasets' structures, splits and labels bit by bit, and the decisions. `labels_computed_twice` counts lines of the jobs'
logs and rewritten files of the cache; `max_epochs_repeated` compares where each training had got to with where it was
taken up. Writes benchmarks/results/chaos.json (chaos_short.json), prints a table and the JSON as one line.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _chaos_campaign import Campaign, settings
from _chaos_faults import LOCAL, Fault, FullDisk, is_on_small_disk
from _publish import publish

# Starts after the last hit until a campaign must have finished.
MOST_STARTS = 6
LONGEST_S = 900.0
DISK_MB = 96


@dataclass
class Tally:
    """What is counted over all campaigns."""

    hits: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    starts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    campaigns: int = 0
    finished: int = 0
    ended_early: int = 0
    refused: int = 0
    twice: int = 0
    repeated: list[int] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    @property
    def interruptions(self) -> int:
        return sum(self.hits.values())


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a small file system, where that is allowed; else give the folder itself."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    try:
        yield folder
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def torment(
    campaign: Campaign, faults: Callable[[], Fault], hits: int, pause_s: tuple[float, float], rng: random.Random,
    tally: Tally,
) -> None:  # fmt: skip
    """Run a campaign, hitting it ``hits`` times, until it is finished or can't be."""
    left, deadline, after = hits, time.monotonic() + LONGEST_S, 0
    while time.monotonic() < deadline and not (campaign.finished and not left and not campaign.is_running):
        if not campaign.is_running:
            after += not left
            if after > MOST_STARTS:
                break
            campaign.start()
        if not left:
            code = campaign.wait(deadline - time.monotonic())
            tally.ended_early += code == 0 and not campaign.finished
            continue
        code = campaign.wait(rng.uniform(*pause_s))
        if code is not None and campaign.finished:
            break  # before the next hit
        if code == 0:
            tally.ended_early += 1  # Snakemake says it is done, and is not
            continue
        fault = faults()
        what = fault(campaign, rng)
        campaign.look()
        left -= 1
        tally.hits[fault.__name__] += 1
        tally.story.append(f"{fault.__name__}: {what}")
        sys.stderr.write(f"  {fault.__name__}: {what}\n")
    if campaign.is_running:
        campaign.end_driver(signal.SIGKILL, with_jobs=True)


def count(campaign: Campaign, expected: dict[str, Any], tally: Tally) -> None:
    """Add what became of a campaign."""
    tally.campaigns += 1
    tally.finished += campaign.finished
    tally.twice += campaign.labels_computed_twice()
    tally.repeated += campaign.epochs_repeated()
    outcome = campaign.outcome()
    wrong = sorted(key for key in expected.keys() | outcome.keys() if expected.get(key) != outcome.get(key))
    tally.different += [f"campaign {tally.campaigns}: {key}" for key in wrong]


def undisturbed(folder: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome of a campaign nobody touches."""
    campaign = Campaign(folder, raw)
    campaign.start()
    if campaign.wait(LONGEST_S) != 0 or not campaign.finished:
        raise RuntimeError((folder / "driver.log").read_text()[-3000:])
    return campaign.outcome()


def bag(faults: list[Fault], rng: random.Random) -> Callable[[], Fault]:
    """Return what draws faults at random, each equally often in the long run."""
    left: list[Fault] = []

    def draw() -> Fault:
        if not left:
            left.extend(rng.sample(faults, len(faults)))
        return left.pop()

    return draw


def on_this_machine(root: Path, options: argparse.Namespace, n: int, expected: dict[str, Any], tally: Tally) -> None:
    """Torment local campaigns until there were ``n`` interruptions."""
    rng = random.Random(options.seed)  # noqa: S311 - a draw of faults, not a secret
    faults: list[Fault] = list(LOCAL)
    draw, target = None, tally.interruptions + n
    while tally.interruptions < target:
        with small_disk(root / f"local_{tally.campaigns}") as disk:
            if draw is None:
                faults += [FullDisk()] if is_on_small_disk(disk) else []
                draw = bag(faults, rng)
            campaign = Campaign(disk, raw_of(options))
            torment(campaign, draw, min(options.hits, target - tally.interruptions), options.pause_s, rng, tally)
            tally.starts["this machine"] += campaign.starts
            count(campaign, expected, tally)
            keep_if_wrong(campaign, tally, options)


def keep_if_wrong(campaign: Campaign, tally: Tally, options: argparse.Namespace) -> None:
    """Say where a campaign went wrong; with --keep the folder stays."""
    if not campaign.finished or tally.different:
        log = (campaign.folder / "driver.log").read_text(errors="replace")
        sys.stderr.write(f"--- not as it should be: {tally.different}\n{log[-3000:]}\n")
        if options.keep:
            target = options.keep / f"campaign_{tally.campaigns}"
            subprocess.run(["cp", "-a", str(campaign.folder), str(target)], check=False)


def raw_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the configuration of the campaigns."""
    return settings(
        seconds_per_label=0.3, max_epochs=30 if options.short else 250, max_iterations=1 if options.short else 2
    )


def table(tally: Tally) -> str:
    """Return what is printed for people."""
    lines = [f"{'fault':<20} hits"]
    lines += [f"{name:<20} {n:>4}" for name, n in sorted(tally.hits.items())]
    lines += [
        f"campaigns finished      {tally.finished} of {tally.campaigns}",
        f"labels computed twice   {tally.twice}",
        f"epochs repeated, most   {max(tally.repeated, default=0)} ({len(tally.repeated)} trainings taken up again)",
        f"different from the undisturbed campaign: {', '.join(tally.different) or 'nothing'}",
    ]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="6 interruptions on this machine")
    parser.add_argument("--local", action="store_true", help="all on this machine, without Slurm")
    parser.add_argument("--interruptions", type=int, default=None)
    parser.add_argument("--hits", type=int, default=None, help="interruptions of each campaign")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--keep", type=Path, default=None, help="folder for campaigns that went wrong")
    options = parser.parse_args()
    options.interruptions = options.interruptions or (6 if options.short else 50)
    options.hits = options.hits or (6 if options.short else 7)
    options.pause_s = (1.5, 6.0) if options.short else (2.0, 16.0)
    return options


def main() -> None:
    """Run it."""
    options = parse()
    raw, tally, start = raw_of(options), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        expected = undisturbed(root / "undisturbed", raw)
        on_slurm = 0 if options.short or options.local else options.interruptions // 2
        on_this_machine(root, options, options.interruptions - on_slurm, expected, tally)
        if on_slurm:
            from _chaos_cluster import on_cluster

            on_cluster(root, options, on_slurm, expected, tally)
    sys.stdout.write(table(tally) + "\n")
    content = {
        "interruptions": tally.interruptions,
        "finished": tally.finished == tally.campaigns,
        "labels_computed_twice": tally.twice,
        "max_epochs_repeated": max(tally.repeated, default=0),
        "checkpoint_interval": raw["training"]["checkpoint_every_epochs"],
        "identical": not tally.different,
        "campaigns": tally.campaigns,
        "drivers_that_ended_early": tally.ended_early,
        "hits": dict(sorted(tally.hits.items())),
        "starts": dict(tally.starts),
        "starts_refused_beside_live_jobs": tally.refused,
        "trainings_taken_up": len(tally.repeated),
        "epochs_repeated": sorted(tally.repeated),
        "different": tally.different,
        "story": tally.story,
        "seed": options.seed,
        "wall_s": round(time.monotonic() - start, 1),
    }
    publish("chaos_short" if options.short else "chaos", content)


if __name__ == "__main__":
    main()
