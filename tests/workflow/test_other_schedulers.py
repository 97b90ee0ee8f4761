"""PBS and Grid Engine through snakemake-executor-plugin-cluster-generic: our scripts, with a scheduler of ten lines."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from campaigns import ROOT, Campaign, example

PBS, SGE = ROOT / "profiles" / "pbs", ROOT / "profiles" / "sge"

# Runs what it is given in the background. The first labelling job is killed as a node that fails would kill it.
QSUB = """#!/bin/sh
dir=$(dirname "$0")
n=$(($(cat "$dir/n" 2>/dev/null || echo 0) + 1)); echo $n > "$dir/n"; id=$n.fake
cat > "$dir/$id.sh"; echo "$*" >> "$dir/calls"; echo "$id"
case "$*" in *label_structures*) if [ ! -e "$dir/killed" ]; then touch "$dir/killed"; exit 0; fi;; esac
PBS_JOBID=$id JOB_ID=$id setsid sh "$dir/$id.sh" > "$dir/$id.out" 2>&1 < /dev/null &
echo $! > "$dir/$id.pid"
"""
QSTAT = """#!/bin/sh
dir=$(dirname "$0")
for id; do :; done
if kill -0 "$(cat "$dir/$id.pid" 2>/dev/null)" 2>/dev/null; then echo "$id R"; exit 0; fi
echo "qstat: Unknown Job Id $id" >&2; exit 153
"""


@pytest.fixture
def scheduler(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("qsub", QSUB), ("qstat", QSTAT)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def script(name: str, folder: Path, scheduler: Path, *arguments: str, **more: str) -> str:
    """Run a script of a profile; return what it printed."""
    done = subprocess.run(
        [str(ROOT / "profiles" / name), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "PATH": f"{scheduler}:{os.environ['PATH']}", **more},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for(path: Path) -> None:
    subprocess.run(
        ["sh", "-c", f"for i in $(seq 100); do [ -s '{path}' ] && exit 0; sleep 0.1; done; exit 1"], check=True
    )


@pytest.mark.parametrize(
    ("name", "site", "asked"),
    [
        ("pbs", ("fast", "chem", "-W x=1 -M me"), "-l select=1:ncpus=2:mem=3000mb:ngpus=1 -l walltime=1:30:00 -q fast "
         "-A chem -W x=1 -M me"),
        ("sge", ("fast", "chem", "smp", "h_vmem", "-M me"), "-l h_rt=5400 -l h_vmem=1500M -pe smp 2 -l gpu=1 -q fast "
         "-P chem -M me"),
    ],
)  # fmt: skip
def test_what_a_job_asks_for_and_how_it_ends(
    tmp_path: Path, scheduler: Path, name: str, site: tuple[str, ...], asked: str
) -> None:
    logs = tmp_path / "results" / f"{name}_logs"
    for code, verdict in ((0, "success"), (3, "failed")):
        job = tmp_path / f"job {code}.sh"
        job.write_text(f"pwd > {tmp_path}/where; exit {code}\n")
        job_id = script(f"{name}/submit.sh", tmp_path, scheduler, "decide", "2", "3000", "90", "1", *site, str(job))
        wait_for(logs / f"{job_id}.exit")
        assert script(f"{name}/status.sh", tmp_path, scheduler, job_id) == verdict
        assert (tmp_path / "where").read_text().strip() == str(tmp_path)
    assert asked in (scheduler / "calls").read_text()


@pytest.mark.parametrize(
    ("name", "said", "answers"),
    [
        ("pbs", "qstat: Unknown Job Id 7.fake", ("running", "failed")),
        (
            "pbs",
            "qstat: 7.fake Job has finished, use -x or -H to obtain historical job information",
            ("running", "failed"),
        ),
        ("pbs", "qstat: cannot connect to server", ("running", "running")),
        ("sge", "Following jobs do not exist: 7", ("running", "failed")),
        ("sge", "error: commlib error: got select error (Connection refused)", ("running", "running")),
        ("sge", "error reason 1: can't chdir", ("failed",)),
    ],
)
def test_jobs_that_left_no_word(
    tmp_path: Path, scheduler: Path, name: str, said: str, answers: tuple[str, ...]
) -> None:
    (tmp_path / "results" / f"{name}_logs").mkdir(parents=True)
    (scheduler / "qstat").write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    patience = ("60", "0")  # at first it may be a file system that lags behind
    found = [
        script(f"{name}/status.sh", tmp_path, scheduler, "7.fake", DUBITO_STATUS_PATIENCE_S=seconds)
        for seconds, _ in zip(patience, answers, strict=False)
    ]
    assert tuple(found) == answers


def test_a_campaign_begins_and_survives_a_killed_job(tmp_path: Path, scheduler: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_cluster_generic", reason="pip install -r envs/requirements-dev.txt")
    folder = tmp_path / "campaign"
    campaign = Campaign(folder, example("teacher"))
    (folder / "profiles").symlink_to(ROOT / "profiles")
    target = f"results/{campaign.name}/iter_000/dataset.h5"
    path = os.environ["PATH"]
    os.environ |= {"PATH": f"{scheduler}:{path}", "DUBITO_STATUS_PATIENCE_S": "1"}
    try:
        text = campaign.run("--profile", "profiles/pbs", "--seconds-between-status-checks", "1", target)
    finally:
        os.environ["PATH"] = path
        del os.environ["DUBITO_STATUS_PATIENCE_S"]
    assert (folder / target).exists(), text
    calls = (scheduler / "calls").read_text().splitlines()
    labelling = [call for call in calls if "dubito_label_structures" in call]
    assert len(labelling) == 3  # two shards, one of them twice
    assert [event["event"] for event in campaign.events(stage="label_structures")].count("finished") == 2
    assert len(campaign.labels()) == 8
