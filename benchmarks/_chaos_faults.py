"""What befalls campaigns: each fault hits a running one and says what it hit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _chaos_campaign import Campaign

HOUR_S = 3600.0
Fault = Callable[[Campaign, random.Random], str]


def kill_driver(campaign: Campaign, _: random.Random) -> str:
    """SIGKILL to Snakemake alone: its jobs go on."""
    campaign.end_driver(signal.SIGKILL, with_jobs=False)
    return "driver"


def power_cut(campaign: Campaign, _: random.Random) -> str:
    """SIGKILL to Snakemake and all its jobs at once."""
    campaign.end_driver(signal.SIGKILL, with_jobs=True)
    return "driver and jobs"


def interrupt_driver(campaign: Campaign, _: random.Random) -> str:
    """Ctrl-C in the terminal."""
    campaign.end_driver(signal.SIGINT, with_jobs=True)
    campaign.wait(60)
    return "Ctrl-C"


def kill_job(campaign: Campaign, rng: random.Random) -> str:
    """SIGKILL to one job."""
    return _signal_job(campaign, rng, signal.SIGKILL)


def time_limit(campaign: Campaign, rng: random.Random) -> str:
    """SIGTERM to one job, as at its wall-time limit."""
    return _signal_job(campaign, rng, signal.SIGTERM)


def truncated_hdf5(campaign: Campaign, rng: random.Random) -> str:
    """A power cut after which one HDF5 file is cut off somewhere."""
    campaign.end_driver(signal.SIGKILL, with_jobs=True)
    found = sorted(campaign.results.glob("iter_*/**/*.h5"))
    if not found:
        return "nothing to cut yet"
    victim = rng.choice(found)
    os.truncate(victim, rng.randrange(victim.stat().st_size))
    return str(victim.relative_to(campaign.results))


def clock_skew(campaign: Campaign, rng: random.Random) -> str:
    """A power cut after which a third of the results claim to be from another time, up to a day off."""
    campaign.end_driver(signal.SIGKILL, with_jobs=True)
    found = [p for p in sorted(campaign.results.glob("iter_*/**/*")) if p.is_file()]
    shifted = [path for path in found if rng.random() < 1 / 3]
    for path in shifted:
        stamp = path.stat().st_mtime + rng.choice((-24, -1, 1, 24)) * HOUR_S
        os.utime(path, (stamp, stamp))
    return f"{len(shifted)} files"


class FullDisk:
    """The file system of the campaign is full for some seconds; works on a small one of its own."""

    __name__ = "disk_full"

    def __init__(self, seconds: float = 4.0) -> None:
        self.seconds = seconds

    def __call__(self, campaign: Campaign, _: random.Random) -> str:
        filler = campaign.folder / "filler"
        with filler.open("wb") as handle:
            try:
                while True:
                    handle.write(bytes(1 << 16))
                    handle.flush()
            except OSError:
                pass
        campaign.wait(self.seconds)
        filler.unlink()
        return f"{self.seconds:g} s"


def _signal_job(campaign: Campaign, rng: random.Random, how: signal.Signals, patience_s: float = 5.0) -> str:
    """Hit a random job; wait a moment when none is at work."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end and campaign.is_running:
        jobs = campaign.running_jobs()
        if jobs:
            job: dict[str, Any] = rng.choice(jobs)
            try:
                os.kill(int(job["pid"]), how)
            except ProcessLookupError:
                continue
            return f"{job['stage']} {job['part']}, iteration {job['iteration']}"
        time.sleep(0.05)
    return "no job at work"


LOCAL: tuple[Fault, ...] = (kill_driver, power_cut, interrupt_driver, kill_job, time_limit, truncated_hdf5, clock_skew)


def is_on_small_disk(folder: Path) -> bool:
    """Say whether the folder's file system is small enough to be filled."""
    stat = os.statvfs(folder)
    return stat.f_blocks * stat.f_frsize < 1 << 28
