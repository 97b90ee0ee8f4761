"""What the labels of a campaign will cost, from labelling a few of them.

The labels go to the campaign's label cache, where its jobs find them: a probe costs nothing twice. They are made in a
process like a labelling job's, so that its memory is measured too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dubito.config import Config
from dubito.core.errors import EnvironmentFault, LabelError

if TYPE_CHECKING:
    from dubito.cli.cluster.plan import Plan, Request

CACHE = Path("results", "label_cache")
# Snakemake's two processes in each job on a cluster take about so much beside the labeller's (docs/cluster.md), MB.
SNAKEMAKE_MB = 300
# Below this share of its cores' time a calculation waited for others.
_BUSY = 0.8
# A shard of which nothing is known, see stages/_shards.py.
_SHARD = 8


@dataclass(frozen=True)
class Probe:
    """What the probe measured.

    Attributes
    ----------
    labels : ``wall_s``, ``cpu_s``, ``n_atoms``, ``reused``, ``failed`` of each structure
    threads : threads of each calculation
    peak_mb : largest resident memory of the process, MB; None where all labels were known before
    host, processor : where it ran
    """

    labels: list[dict[str, Any]]
    threads: int
    peak_mb: float | None
    host: str
    processor: str

    @property
    def walls(self) -> list[float]:
        """Wall seconds of the labels that were made, failed attempts included: those cost as much."""
        return [float(one["wall_s"]) for one in self.labels]


def forecast_lines(config: Config, n: int, *, plan: Plan | None = None, submit: bool = False) -> Iterator[str]:
    """Label ``n`` of the initial structures and yield what that says of the whole campaign.

    Raises
    ------
    LabelError
        When none of them could be labelled.
    EnvironmentFault
        When the process that labels dies.
    """
    request = plan.first("label_structures") if plan else None
    threads = request.cpus if request else 1
    yield f"probe: labels {n} of the initial structures on {threads} thread{'' if threads == 1 else 's'}; they are kept"
    probe = run_probe(config, n, threads, request if submit else None)
    yield from told(config, probe)
    if request is not None:
        yield from compared(config, probe, request)


def run_probe(config: Config, n: int, threads: int, request: Request | None) -> Probe:
    """Label ``n`` structures in a process of their own: here, or on a node with the resources of ``request``."""
    from dubito.cli.cluster.check_threads import environment

    Path("results").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".dubito-probe-", dir="results") as made:
        place = Path(made).resolve()
        (place / "config.json").write_text(config.model_dump_json())
        command = [sys.executable, "-m", "dubito.cli.probe_worker", str(place), str(n), str(threads)]
        if request is None:
            done = subprocess.run(command, env=environment(threads), capture_output=True, text=True, check=False)
            said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        else:
            said = _on_node(request, command, place)
        if not (place / "probe.json").exists():
            raise EnvironmentFault(f"The probe did not end well: {said}. The labels it finished are kept.")
        found = json.loads((place / "probe.json").read_text())
    probe = Probe(**found)
    if all(one["failed"] for one in probe.labels):
        raise LabelError(
            f"None of the {len(probe.labels)} structures probed could be labelled; the first: "
            f"{probe.labels[0]['failed']}. Mend the structures or the section labelling before you start."
        )
    return probe


def told(config: Config, probe: Probe) -> Iterator[str]:
    """Yield the measured times and the forecast of all labels."""
    walls, atoms = probe.walls, [int(one["n_atoms"]) for one in probe.labels]
    known = sum(bool(one["reused"]) for one in probe.labels)
    failed = [one["failed"] for one in probe.labels if one["failed"]]
    mean = sum(walls) / len(walls)
    cpu = sum(float(one["cpu_s"]) for one in probe.labels) / len(walls)
    sizes = f"{min(atoms)} atoms" if min(atoms) == max(atoms) else f"{min(atoms)} to {max(atoms)} atoms"
    note = f"; {known} known before, with the times of then" if known else ""
    yield (
        f"  measured: {len(walls)} labels of {sizes}{note}: {mean:.2f} s each ({min(walls):.2f} to {max(walls):.2f}), "
        f"processor {cpu:.2f} s, on {probe.host} ({probe.processor})"
    )
    if probe.peak_mb is not None:
        yield f"  memory: {probe.peak_mb:.0f} MB at most"
    if failed:
        yield f"  warning: {len(failed)} of {len(walls)} failed, the first: {failed[0]}"
    count, words = labels_of(config)
    low, middle, high = (core_hours(count, wall, probe.threads) for wall in (min(walls), mean, max(walls)))
    yield f"  forecast: {words} = {count} labels: {_hours(middle)} core-hours of DFT ({_hours(low)} to {_hours(high)})"
    if cpu < _BUSY * mean * probe.threads:
        free = core_hours(count, cpu / probe.threads, probe.threads)
        yield f"  that machine was busy: by the processor's time alone it is {_hours(free)} core-hours"
    yield (
        "  it rests on: all labels costing what these did, the range on all being like the cheapest or the dearest. "
        "Structures of other sizes, and SCFs that need the ladder, cost more; nodes may be faster or slower than "
        f"{probe.host}; the profile's relaxations, training and exploring are not in it"
    )


def compared(config: Config, probe: Probe, request: Request) -> Iterator[str]:
    """Yield whether memory and time asked for a labelling job suffice."""
    if probe.peak_mb is not None and request.mem_mb:
        needed = probe.peak_mb + SNAKEMAKE_MB
        text = f"{request.mem_mb} MB asked for label_structures, {needed:.0f} needed ({SNAKEMAKE_MB} by Snakemake)"
        if needed > request.mem_mb:
            yield f"  warning: {text}: set mem_mb to {_rounded(1.3 * needed)} or more in the profile"
        else:
            yield f"  ok: {text}"
    size = config.labelling.structures_per_shard
    each = size if isinstance(size, int) else _SHARD
    if request.runtime_min:
        needed_min = each * max(probe.walls) / 60
        text = f"{request.runtime_min} min asked for a shard of {each}, {needed_min:.1f} if all are like the dearest"
        if needed_min > request.runtime_min:
            yield (
                f"  warning: {text}: raise runtime in the profile, or lower labelling.structures_per_shard (finished "
                "labels are kept when the time is up)"
            )
        else:
            yield f"  ok: {text}"


def labels_of(config: Config) -> tuple[int, str]:
    """Return how many labels the campaign can ask for at most, and how that comes about."""
    from dubito.stages import prepare_structures

    initial = config.data.initial.n_structures
    if initial is None:
        from dubito.data.store import read_structures

        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, "candidates.h5")
            prepare_structures.run(output=output, data=config.data, seed=config.campaign.seed)
            initial = len(read_structures(output))
    batch = config.selection.batch_size
    rounds = config.campaign.max_iterations
    count, words = initial + rounds * batch, f"{initial} initial + {rounds} x {batch}"
    if config.campaign.max_labels is not None and config.campaign.max_labels < count:
        count, words = config.campaign.max_labels, f"{words}, stopped by campaign.max_labels"
    points = sum(profile.n_points for profile in config.evaluation.profiles)
    return (count + points, f"{words} + {points} of profiles") if points else (count, words)


def core_hours(count: int, wall_s: float, threads: int) -> float:
    """Return the core-hours of ``count`` labels: cores that are held, whether they work or not."""
    return count * wall_s * threads / 3600


def _on_node(request: Request, command: list[str], place: Path) -> str:
    """Run the command as a job with the resources of a labelling job; return its last words."""
    from dubito.cli.cluster.findings import Finding
    from dubito.cli.cluster.trial import Job, cancel, submit, tail, wait_for

    log = place / "probe.log"
    variables = [f"{name}={request.cpus}" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]
    number = submit(request, ["env", *variables, *command], log, request.runtime_min or 60)
    if isinstance(number, Finding):
        return number.text
    job = Job(request, number, place / "probe.json", log)
    try:
        wait_for([job], 60.0 * (request.runtime_min or 60) + 600, poll_s=2.0)
    finally:
        cancel([job])
    return f"job {number} on {job.node or 'no node'} ended as {job.state} ({job.reason}); {tail(log) or 'no log'}"


def _hours(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _rounded(mb: float) -> int:
    return int(-(-mb // 500) * 500)
