"""What each rule asks for: threads, GPUs, and the cost of starting a job. The one place where that is chosen.

A profile overrides all of it (``set-threads``, ``set-resources``): it knows the machine, this knows the work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dubito.config import Config

# The rules that run the network.
NETWORK_RULES: Final = (
    "train_ensemble",
    "fit_uncertainty",
    "explore_structures",
    "score_candidates",
    "predict_structures",
    "predict_batch",
)
# A thread pays when it gets this many (structure, member) pairs to evaluate between two points where all wait.
PAIRS_PER_THREAD: Final = 8
# A job of fewer pairs in all is over before a second thread pays for itself: most of it is the import of torch.
PAIRS_PER_JOB: Final = 4000
# What the profiles raise where more pays: beyond this nothing is measured.
MOST_THREADS: Final = 2
# Seconds of a labelling job before its first label: start and imports; on a cluster Snakemake starts twice more.
FIXED_S: Final = {"local": 2.0, "cluster": 6.0}


def threads_of(rule: str, config: Config) -> int:
    """Return the threads of a rule, from its work in this campaign.

    Rules without network are small numpy work, or (labels, profiles) one calculation after another in one process,
    where jobs side by side use the cores better: 1 thread. Rules with network get more when they have the work.
    """
    if rule not in NETWORK_RULES:
        return 1
    at_once, in_all = _pairs(rule, config)
    if in_all < PAIRS_PER_JOB:
        return 1
    return max(1, min(MOST_THREADS, at_once // PAIRS_PER_THREAD))


def _pairs(rule: str, config: Config) -> tuple[int, int]:
    """Return the (structure, member) pairs that a job evaluates between two synchronisations, and in all."""
    training, samplers, members = config.training, config.sampling.samplers, config.training.n_members
    if rule == "train_ensemble":
        together = min(members, training.members_per_job)
        return training.batch_size * together, most_labels(config) * training.max_epochs * together
    if rule == "explore_structures":
        busiest = max(samplers, key=lambda sampler: sampler.evaluations_per_job)
        return busiest.batch_size * members, busiest.evaluations_per_job * members
    if rule == "score_candidates":
        found = sum(sampler.n_jobs * sampler.candidates_per_job for sampler in samplers)
        return found * members, found * members
    if rule == "predict_batch":
        batch = config.selection.batch_size * members
        return batch, batch
    return most_labels(config) * members, most_labels(config) * members


def most_labels(config: Config) -> int:
    """Return about how many labels the campaign can have in the end.

    Structures from files count as none where ``data.initial.n_structures`` does not say how many: this is asked
    whenever the workflow is read, and must not read files.
    """
    most = (config.data.initial.n_structures or 0) + config.campaign.max_iterations * config.selection.batch_size
    return most if config.campaign.max_labels is None else min(most, config.campaign.max_labels)


def gpus_of_rule(device: str, *, is_driver: bool, runs_here: bool) -> int:
    """Return how many GPUs a rule asks for, unless the profile says otherwise.

    Parameters
    ----------
    device : ``cpu``, ``cuda`` or ``auto``, see :func:`network_device` and :func:`labelling_device`
    is_driver : whether this is the process that plans, not a job on a node
    runs_here : whether jobs run on this machine

    Notes
    -----
    ``cuda`` asks for one everywhere. ``auto`` asks for one where jobs run on a machine that has one; on a cluster it
    takes what the profile requests. A job on a node has what the scheduler shows it.
    """
    if device == "cpu":
        return 0
    if not is_driver:
        return visible_gpus(os.environ)
    return 1 if device == "cuda" or (runs_here and machine_has_gpu(os.environ)) else 0


def network_device(config: Config) -> str:
    """Return where the rules with network run: ``resources.device``, but the CPU where ``auto`` has no choice.

    ``model.kernel: fused`` is compiled for the CPU alone, and would fail on a GPU that ``auto`` finds.
    """
    wanted = config.resources.device
    return "cpu" if wanted == "auto" and config.model.kernel == "fused" else wanted


def labelling_device(config: Config) -> str:
    """Return where labels are made, in the words of ``resources.device``."""
    wanted = getattr(config.labelling.labeller, "device", "cpu")
    return "cuda" if wanted == "gpu" else str(wanted)


def visible_gpus(environment: Mapping[str, str]) -> int:
    """Return how many GPUs ``CUDA_VISIBLE_DEVICES`` shows; 0 when it is not set."""
    shown = environment.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in shown.split(",")]
    return len([name for name in names if name not in {"", "-1", "NoDevFiles"}])


def machine_has_gpu(environment: Mapping[str, str], devices: Path = Path("/dev")) -> bool:
    """Say whether this machine has an NVIDIA GPU that is not hidden; looks at device files, imports nothing."""
    if "CUDA_VISIBLE_DEVICES" in environment and not visible_gpus(environment):
        return False
    return any(path.name.removeprefix("nvidia").isdigit() for path in devices.glob("nvidia*"))
