"""How many labels are made, failed and left: of this batch, in all, of the budget."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dubito.cli.status.files import CampaignFiles
from dubito.cli.status.jobs import FINISHED, LABEL, Run
from dubito.cli.status.values import amount, mapping, sequence, text, whole

# What a labelling job says at its end, see dubito.stages.label_structures.
_SAID = re.compile(r"(\d+) of (\d+) structures labelled(?:, \d+ of them known already)?(?:; (\d+) failed \(([^)]*)\))?")
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Batch:
    """Labels of the batch of one iteration that is not evaluated yet; of jobs that are under way those made so far."""

    iteration: int
    done: int
    failed: int
    of: int
    shards: int
    shards_done: int

    @property
    def left(self) -> int:
        """Structures still to be labelled."""
        return max(0, self.of - self.done - self.failed)


@dataclass(frozen=True)
class Labels:
    """Labels of a campaign; ``spent`` counts failed ones too, as ``campaign.max_labels`` does."""

    batch: Batch | None
    total: int
    failed: int
    spent: int
    max_labels: int | None
    reasons: Mapping[str, int]
    # By iteration: structures selected for a label, and the size of the dataset.
    selected: Mapping[int, int]
    dataset: Mapping[int, int]


def labels_of(files: CampaignFiles, runs: Sequence[Run]) -> Labels:
    """Count the labels of a campaign."""
    said: dict[int, dict[str, str]] = {}
    # When failed labels were last taken back (`dubito retry`): what jobs before that say of failures is past.
    retried = {e.iteration: e.time for e in files.events() if e.kind == "retried"}
    for run in runs:
        stage, iteration, shard = run.job
        if stage == LABEL and iteration is not None and run.state == FINISHED and run.end is not None:
            said.setdefault(iteration, {})[shard] = text(run.end.raw.get("text"))
    selected: dict[int, int] = {}
    dataset: dict[int, int] = {}
    failed, reasons, batch = 0, Counter[str](), None
    for k in files.iterations():
        counted = mapping(files.of_iteration(k, "metrics.json").get("labels"))
        if whole(counted.get("total")) is not None:
            lost = int(amount(counted.get("failed")))
            selected[k], dataset[k] = int(amount(counted.get("new"))) + lost, int(amount(counted["total"]))
            batch = None
        else:
            batch = _batch(files, k, said.get(k, {}), retried.get(k, 0.0))
            if batch is None:
                continue
            selected[k], lost = batch.of, batch.failed
        failed += lost
        if lost:
            reasons += _reasons(files, k, said.get(k, {}))
    total = max(dataset.values(), default=0)
    known = max(dataset, default=-1)
    if batch is not None and batch.iteration > known:
        total += batch.done
    budget = whole(mapping(files.config().get("campaign")).get("max_labels"))
    return Labels(batch, total, failed, sum(selected.values()), budget, dict(reasons), selected, dataset)


def _batch(files: CampaignFiles, iteration: int, said: Mapping[str, str], retried: float) -> Batch | None:
    """Count the labels of a batch that is not evaluated; None before it is selected."""
    plan = files.of_iteration(iteration, "selection.json")
    of, shards = whole(plan.get("n_selected")), whole(plan.get("n_shards"))
    if of is None or shards is None:
        return None
    finished = {shard for shard in files.shard_reports(iteration) if int(shard) < shards}
    done = failed = 0
    for i in range(shards):
        shard = f"{i:03d}"
        if shard in finished:
            made, lost = _of_shard(files, iteration, shard, said.get(shard, ""))
        else:
            beat = files.labelling(iteration, shard)
            made, lost = whole(beat.get("done")) or 0, _length(beat.get("failed"))
            lost = lost if amount(beat.get("time")) > retried else 0
        done, failed = done + made, failed + lost
    return Batch(iteration, min(done, of), min(failed, of), of, shards, len(finished))


def _of_shard(files: CampaignFiles, iteration: int, shard: str, said: str) -> tuple[int, int]:
    """Return the labels made and failed of a finished shard: from what its job said, else from its report."""
    words = _SAID.match(said)
    if words is not None:
        return int(words[1]), int(words[2]) - int(words[1])
    report = files.shard_report(iteration, shard)
    return whole(report.get("done")) or 0, _length(report.get("failed"))


def _length(value: object) -> int:
    """Return a number of failures, given as a number or as a list."""
    return len(value) if isinstance(value, list) else whole(value) or 0


def _reasons(files: CampaignFiles, iteration: int, said: Mapping[str, str]) -> Counter[str]:
    """Count the failures of an iteration by reason. Reports are opened only where the words of the job don't do."""
    found: Counter[str] = Counter()
    for shard in sorted(files.shard_reports(iteration)):
        words = _SAID.match(said.get(shard, ""))
        if words is not None:
            if words[3] is None:
                continue
            if "," not in words[4]:
                found[words[4]] += int(words[3])
                continue
        for failure in sequence(files.shard_report(iteration, shard).get("failed")):
            found[text(mapping(failure).get("reason")) or _UNKNOWN] += 1
    return found
