"""Slurm's words, and what they mean for a campaign: states of jobs, reasons to wait, names."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Sequence
from typing import Final

# Slurm does not answer within this many seconds: it is taken for absent.
ANSWER_WITHIN_S: Final = 60.0
NOT_THERE: Final = -1000
SILENT: Final = -1001
# The plugin takes no longer prefix of a job's name.
_LONGEST_PREFIX: Final = 50

# States in which a job is over without having succeeded and which the plugin (2.8.0) waits out for ever.
_OVER: Final = frozenset({"REVOKED", "SPECIAL_EXIT", "LAUNCH_FAILED", "RECONFIG_FAIL"})

# Reasons for which a pending job waits for a person, and what that person can do. Reasons that pass by themselves
# (Priority, Resources, Dependency, ...) are not here.
_NEVER: Final = {
    "AccountNotAllowed": "its account may not use this partition: set another `account` or `partition`",
    "BadConstraints": "no node has what it asks for: mend `constraint` in the profile (`sinfo -o '%N %f'` lists them)",
    "InvalidAccount": "its account is not valid (any more): `sacctmgr show assoc user=$USER` lists yours",
    "InvalidQOS": "its QOS is not valid: mend `qos` in the profile (`sacctmgr show assoc user=$USER format=qos`)",
    "JobHeldAdmin": "an administrator holds it: ask them why",
    "JobHeldUser": "it is held: `scontrol release {job}`",
    "PartitionConfig": "it asks for more than its partition allows or has: lower cores or memory of the rule "
    "(`set-threads`, `set-resources` in the profile) or take another partition",
    "PartitionDown": "its partition is down: wait, or set another `partition`",
    "PartitionInactive": "its partition is switched off: wait, or set another `partition`",
    "PartitionNodeLimit": "its partition allows fewer nodes than it asks for: lower the rule's resources",
    "PartitionTimeLimit": "its time limit is longer than its partition's: set `runtime` of the rule (minutes) in "
    "`set-resources` of the profile, or another partition",
    "QOSNotAllowed": "its QOS may not be used here: mend `qos` in the profile",
    "ReqNodeNotAvail": "the nodes it needs are down or reserved: see `sinfo -R`; it starts when they are back",
    "launch failed requeued held": "it could not be started and is held: `scontrol release {job}`",
}  # fmt: skip
# The same for families of reasons.
_NEVER_LIKE: Final = (
    (r"Assoc(Grp|Max)\w*(Minutes|RunMinutes)\w*", "the budget of its account is used up, or would be: ask for more, or "
     "set another `account`"),
    (r"QOS(Grp|Max)\w*(Minutes|RunMinutes)\w*", "the budget of its QOS is used up, or would be: set another `qos`"),
    (r"(Assoc|QOS)Max\w+Per(Job|Node)\w*", "it asks for more than one job may have: lower the rule's resources, or set "
     "another `qos`"),
    # In squeue's words, which has spaces where other reasons have none.
    (r"Nodes[ _]required[ _]for[ _]job[ _]are[ _]DOWN.*", "the nodes it could have are down, drained or kept for "
     "others (`sinfo -R`); it starts when they are back"),
)  # fmt: skip


def jobname_prefix(campaign: str) -> str:
    """Return how the names of a campaign's Slurm jobs begin.

    Examples
    --------
    >>> jobname_prefix("rehearsal")
    'dubito-rehearsal'
    """
    prefix = f"dubito-{campaign}"
    if len(prefix) <= _LONGEST_PREFIX:
        return prefix
    mark = hashlib.sha256(campaign.encode()).hexdigest()[:6]
    return f"{prefix[: _LONGEST_PREFIX - 7]}-{mark}"


def is_job_of(campaign: str, jobname: str) -> bool:
    """Say whether a Slurm job of this name belongs to a campaign (the plugin appends ``_<id of the run>``)."""
    prefix, _, run = jobname.rpartition("_")
    return prefix == jobname_prefix(campaign) and bool(run)


def plain_state(state: str, *, is_requeued: bool) -> str:
    """Return a state in the words the plugin compares with.

    Parameters
    ----------
    state : as squeue or sacct say it, for example ``CANCELLED by 1000``
    is_requeued : whether Slurm starts preempted jobs again by itself
    """
    first = (state.split() or ["UNKNOWN"])[0].rstrip("+")
    if first in _OVER:
        return "FAILED"
    if first == "PREEMPTED" and not is_requeued:
        return "CANCELLED"
    return first


# What sbatch says while there is no room for another job ...
_NO_ROOM: Final = re.compile(
    r"(?i)\w*Submit_?Jobs?\w*Limit|Resource temporarily unavailable|temporarily unable to accept"
)
# ... and when nobody knows whether it was taken.
_NO_ANSWER: Final = re.compile(
    r"(?i)Socket timed out|Zero Bytes were transmitted|Unable to contact slurm controller|"
    r"Connection (refused|timed out)|Communication connection failure|Transport endpoint|"
    r"Connection reset|controller not responding"
)


def no_room(words: str) -> str | None:
    """Return why sbatch takes no job at present, from what it says; None where waiting would not help."""
    found = _NO_ROOM.search(words)
    return found.group() if found else None


def no_answer(words: str) -> str | None:
    """Return the words of sbatch that leave open whether the job was taken; None where it says that it was not."""
    found = _NO_ANSWER.search(words)
    return found.group() if found else None


def never_starts(reason: str) -> str | None:
    """Return what to do about a job that is pending for ``reason``, None where waiting is right."""
    plain = reason.strip("()").split(",")[0].strip()
    if plain in _NEVER:
        return _NEVER[plain]
    return next((words for pattern, words in _NEVER_LIKE if re.fullmatch(pattern, plain)), None)


def ask(command: Sequence[str]) -> tuple[int, str, str]:
    """Run a Slurm command; return its exit code, what it printed and its errors.

    The code is ``NOT_THERE`` where there is no such command, and ``SILENT`` when it does not answer in a minute.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_WITHIN_S, check=False)
    except OSError as error:
        return NOT_THERE, "", str(error)
    except subprocess.TimeoutExpired:
        return SILENT, "", f"{command[0]} did not answer within {ANSWER_WITHIN_S:.0f} s"
    return done.returncode, done.stdout, done.stderr.strip()
