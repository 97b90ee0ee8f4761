"""Label one shard of the selected structures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.labelling import LabellingConfig
from dubito.core.errors import DataError
from dubito.core.files import write_json
from dubito.core.heartbeat import labelling_heartbeat
from dubito.core.progress import read
from dubito.data.store import read_predictions, read_structures, write_structures
from dubito.labelling.cache import LabelCache
from dubito.labelling.gradient_check import check_gradients
from dubito.labelling.registry import make_labeller
from dubito.labelling.reuse import adopt, offer
from dubito.labelling.sane import refuse_insane
from dubito.labelling.service import label_structures
from dubito.labelling.supervised import label_in_child
from dubito.labelling.vouching import new_job, sign
from dubito.labelling.watch import Watch
from dubito.reporting.evaluated import Evaluated

# Between structures this stage looks whether a signal asked it to stop.
CHECKS_INTERRUPTS = True
# A structure that was in hand as often as this when the job ran out of time is given up.
TIMEOUTS = 3


def run(
    *,
    selected: Path,
    shard: int,
    structures_per_shard: int,
    output: Path,
    report: Path,
    cache: Path,
    labelling: LabellingConfig,
    threads: int,
) -> str:
    """Label the structures ``shard * structures_per_shard`` and following, each kept in the cache at once.

    A structure that fails is recorded in both files and stops nothing. Those a user gave (iteration 0)
    are refused as a whole before anything is spent when one of them can't be labelled at all.

    Raises
    ------
    DataError
        When the shard is beyond the end of ``selected``, or a file of ``labelling.reuse_from`` can't be read.
    LabelError
        When the method is unknown, a given structure does not suit it, or its forces are not those of its energies.
    StorageError
        When the disk is full; finished labels are kept.
    MemoryFault
        When the kernel killed the program for want of memory.
    Interrupted
        When a signal asked to stop, after the structure in hand was finished.
    """
    structures = read_structures(selected)
    rows = slice(shard * structures_per_shard, (shard + 1) * structures_per_shard)
    part = structures[rows]
    if not len(part):
        raise DataError(
            f"{selected} holds {len(structures)} structures, so there is no shard {shard} of {structures_per_shard}. "
            "The selection was changed after the jobs were planned; start the campaign again."
        )
    given = bool(part.column("origin/iteration").max() <= 0)
    said = Evaluated(structures, read_predictions(selected)).take(np.arange(len(structures))[rows])
    job, checks = new_job(), labelling.checks

    def work(watch: Watch) -> str:
        """Label and write, in a child process: a program that crashes takes nothing else along."""
        labeller = make_labeller(labelling.labeller, threads=threads)
        known = sign(LabelCache(cache, labeller.settings()), labeller, checks, job)
        lent = offer(labelling.reuse_from, labeller, part.ids)
        adopted = adopt(lent, part, labeller, known, checks, watch)
        labelled, summary = label_structures(part, labeller, known, refuse_all=given, watch=watch)
        wrong = check_gradients(labelled, labeller, known, checks, watch)
        labelled, summary = refuse_insane(labelled, summary, said.predictions, checks, wrong)
        write_structures(output, labelled, attributes={"settings": labeller.settings()})
        write_json(report, {"shard": shard, **summary, "adopted": adopted})
        text = _said(summary, len(part))
        # The same for each shard of a batch, so said once.
        return f"{text}; {lent.said()}" if labelling.reuse_from and shard == 0 else text

    # A job of a campaign writes results/<campaign>/iter_<k>/labels/<file>.
    iteration = output.parent.parent.name.removeprefix("iter_")
    if output.parent.name != "labels" or not iteration.isdigit():
        return str(label_in_child(work, len(part)))
    campaign = output.parent.parent.parent
    heartbeat = labelling_heartbeat(campaign, int(iteration), shard)
    hopeless = _hopeless(read(campaign / "progress.jsonl"), int(iteration), shard)
    return str(label_in_child(work, len(part), heartbeat=heartbeat, hopeless=hopeless))


def _hopeless(events: list[dict[str, Any]], iteration: int, shard: int) -> dict[str, str]:
    """Return the structures that this job had in hand each time it ran out of time, since it last finished.

    Only the end at the time limit counts: whoever kills a job from outside says nothing about a structure.
    """
    counts: Counter[str] = Counter()
    for event in events:
        if (event.get("stage"), event.get("iteration")) != ("label_structures", iteration):
            continue
        part = str(event.get("part", ""))
        if not part.isdecimal() or int(part) != shard:
            continue
        if event.get("event") == "finished":
            counts.clear()
        elif event.get("event") == "died" and event.get("reason") == "timeout" and event.get("in_flight"):
            counts[str(event["in_flight"])] += 1
    return {
        key: f"{n} jobs, each with more time than the one before, ran out of time with this structure in hand. Give "
        "the rule label_structures a longer runtime in the profile if it is worth that."
        for key, n in counts.items()
        if n >= TIMEOUTS
    }


def _said(summary: dict[str, object], total: int) -> str:
    text = f"{summary['done']} of {total} structures labelled"
    if summary["reused"]:
        text += f", {summary['reused']} of them known already"
    failed = summary["failed"]
    if isinstance(failed, list) and failed:
        reasons = sorted({str(f["reason"]) for f in failed})
        text += f"; {len(failed)} failed ({', '.join(reasons)})"
    return text
