"""Tables of docs/cluster.md, from the JSON of chaos.py, slurm_overhead.py, dag.py and failing_labels.py."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]

_FAULTS = {
    "kill_driver": "SIGKILL to the driver, its jobs live on",
    "power_cut": "SIGKILL to the driver and all its jobs",
    "interrupt_driver": "Ctrl-C",
    "kill_job": "SIGKILL to a random job",
    "time_limit": "SIGTERM to a random job, this machine",
    "slurm_time_limit": "SIGTERM to a random job, by Slurm",
    "scancel": "a random job cancelled",
    "node_down": "a node loses power, and comes back",
    "controller_restart": "slurmctld away for up to 12 s, or killed",
    "accounting_restart": "slurmdbd away for up to 10 s",
    "disk_full": "no byte left on the disk for 4 s",
    "truncated_hdf5": "power cut, and a random HDF5 file is cut off",
    "clock_skew": "power cut, and a third of the files dated up to a day off",
}


def chaos(found: Json) -> Table:
    """Say what was done, and what came of it."""
    if not found:
        return ["interruption", "times"], []
    rows: list[list[Any]] = [[_FAULTS.get(name, name), count] for name, count in found["hits"].items()]
    rows.sort(key=lambda row: -row[1])
    starts = sum(found["starts"].values())
    rows += [
        ["**interruptions**", f"**{found['interruptions']}**, in {found['campaigns']} campaigns, {starts} starts"],
        ["all campaigns finished", "yes" if found["finished"] else "**no**"],
        ["starts refused beside jobs of a killed driver", found["starts_refused_beside_live_jobs"]],
        ["drivers that ended before the campaign", found["drivers_that_ended_early"]],
        ["finished labels computed twice", found["labels_computed_twice"]],
        [
            "epochs repeated, at most",
            f"{found['max_epochs_repeated']} (checkpoint every {found['checkpoint_interval']}; "
            f"{found['trainings_taken_up']} trainings were taken up again)",
        ],
        ["selections, datasets, decisions as undisturbed", "yes" if found["identical"] else "**no**"],
    ]
    return ["interruption", "times"], rows


def overhead(found: Json) -> Table:
    """Say what a job costs beside its work."""
    head = ["on the throw-away Slurm, profile as shipped", "jobs", "before its work, s", "after it, s", "share"]
    if not found:
        return head, []
    rows = [
        ["all jobs", found["jobs"], found["before_s"], found["after_s"], ""],
        [
            "jobs that work a minute or more",
            found["long_jobs"],
            found["long_before_s"],
            found["long_after_s"],
            f"{found['share_of_long_jobs']:.1%}",
        ],
        [
            f"the campaign: {found['wall_s']:.0f} s, no job at work",
            "",
            "",
            "",
            f"{found['orchestration_share']:.1%}",
        ],
    ]
    return head, rows


def dag(found: Json) -> Table:
    """Say how long Snakemake thinks."""
    rows = [
        [row["shards"], f"{row['to_label']['s']:.1f}", f"{row['labelled']['s']:.1f}"] for row in found.get("rows", [])
    ]
    return ["label jobs in the batch", "all to be made, s", "all made, s"], rows


def failing(found: Json) -> Table:
    """Say what became of campaigns whose labels fail."""
    rows = [
        [name, line["tried"], f"{line['labelled_share']:.0%}", line["state"], line["failed_in_a_dataset"]]
        for name, line in found.items()
        if isinstance(line, dict) and "labelled_share" in line
    ]
    return ["share made to fail", "structures", "labelled", "state", "failed ones in a dataset"], rows
