"""`dubito status` on campaigns in every state."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from screens import dubito, flat, look, shown
from synthetic_progress import Planted, dead_pid, write_json, write_text

from dubito.cli.status.queue import Queue
from dubito.cli.status.screen import screen
from dubito.core.interrupt import Interrupted

HERE = socket.gethostname()


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


# --- states -------------------------------------------------------------------------------------------


def test_fresh(planted: Planted) -> None:
    text = shown(planted)
    assert "planted: not running: no job has ended yet" in text
    assert "Next: `snakemake --cores 2`" in text
    planted.drive()
    assert look(planted).situation.words == "starting"
    assert "Next: wait" in shown(planted)


def test_running_shows_jobs_with_labels_and_epochs(planted: Planted) -> None:
    planted.drive()
    planted.iteration(0)
    planted.explore(1)
    # Both jobs live: this process has their number.
    planted.event("started", "label_structures", 1, "000", pid=os.getpid(), threads=1)
    planted.event("started", "label_structures", 1, "001", pid=os.getpid(), threads=1)
    planted.clock += 65
    planted.beat(1, 0, done=2, failed=1)
    text = flat(shown(planted))
    assert "planted: running." in text
    assert f"process {os.getpid()} on {HERE}" in text
    assert "now: label_structures 000, iteration 1 for 65 s, 2 of 5 labels, 1 failed" in text
    assert "now: label_structures 001, iteration 1 for 65 s" in text
    assert "iteration 1 of 5: explore, score, select done; now label; then" in text
    assert "batch 1: 2 done, 1 failed, 7 left of 10 (0 of 2 jobs done); 12 in all, 1 failed" in text
    assert "`dubito status --watch`" in text
    planted.label(1)
    planted.event("started", "train_ensemble", 1, "0", pid=os.getpid(), threads=1)
    planted.clock += 120
    planted.epoch(1, 120)
    text = flat(shown(planted))
    assert "now: train_ensemble 0, iteration 1 for 2 min, epoch 120 of 200" in text
    assert "select, label done; next" not in text


def test_killed_driver(planted: Planted) -> None:
    pid = dead_pid()
    planted.drive(pid=pid, command="/opt/venv/bin/snakemake --cores 8 --configfile mine.yaml")
    planted.iteration(0)
    planted.event("started", "explore_structures", 1, "0", pid=pid)
    planted.clock += 3600
    found, text = look(planted), flat(shown(planted))
    assert (found.situation.state, found.situation.is_running) == ("killed", False)
    assert "planted: not running: its Snakemake was killed." in text
    assert f"Snakemake (process {pid} on {HERE}" in text
    assert "killed: explore_structures 0, iteration 1" in text
    assert "Next: `snakemake --cores 8 --configfile mine.yaml`; finished work is kept" in text


def test_a_job_that_outlived_its_driver(planted: Planted) -> None:
    planted.drive(pid=dead_pid())
    planted.event("started", "explore_structures", 1, "0", pid=os.getpid())
    text = flat(shown(planted))
    assert "its Snakemake was killed, its jobs go on" in text
    assert "now: explore_structures 0, iteration 1" in text
    assert "it waits for the jobs that still run" in text


def test_a_killed_job_on_another_host_is_told_by_slurm(tmp_path: Path) -> None:
    planted = Planted(tmp_path, slurm=True, host="node7")
    planted.iteration(0)
    planted.start("train_ensemble", 1, "0", slurm_job="77", mem_mb=4000, runtime_min=60)
    planted.clock += 600
    # Nobody answers: it may run. Slurm knows it: it runs. Slurm knows it no more: it is dead.
    assert "not visible from here" in flat(shown(planted))
    assert "(Slurm 77 on node7)" in flat(shown(planted, Queue(True, ids=frozenset({"77"}))))
    assert "killed: train_ensemble 0, iteration 1" in shown(planted, Queue(True))
    # Nor can it run long after its time limit.
    planted.clock += 7200
    assert "killed: train_ensemble 0, iteration 1" in shown(planted)


def test_a_driver_on_another_host(planted: Planted) -> None:
    planted.drive(pid=4711, host="login2")
    planted.iteration(0)
    planted.clock += 60
    assert "running, as far as can be seen from here (last sign 60 s ago)" in flat(shown(planted))
    planted.clock += 86_400
    text = flat(shown(planted))
    assert "no sign from login2 for 24 h" in text
    assert "`ssh login2 ps -p 4711`" in text


def test_stopped_by_a_failed_job(planted: Planted) -> None:
    planted.iteration(0)
    planted.start("explore_structures", 1, "0")
    planted.clock += 12
    error = "StorageError: Could not write a file: the disk is full."
    planted.end("failed", "explore_structures", 1, "0", wall=12, error=error)
    text = flat(shown(planted))
    assert "stopped by a failed job" in text
    assert "failed: explore_structures 0, iteration 1 at" in text
    assert "after 12 s StorageError: Could not write a file: the disk is full." in text
    assert "log: results/planted/logs/iter_001/explore_structures_0.log" in text
    assert "read the log, mend the cause" in text


def test_stopped_by_hand(planted: Planted) -> None:
    planted.iteration(0)
    assert look(planted).situation.state == "stopped"
    assert "rest, at most 5 iterations and 50 labels: very roughly" in flat(shown(planted))


def test_paused_with_and_without_a_model(planted: Planted) -> None:
    reason = "9 of the 10 structures of iteration 0 (90%) could not be labelled."
    planted.iteration(0, failed=9, state="paused", reason=reason)
    text = flat(shown(planted))
    assert f"planted: paused. {reason}" in text
    assert "failed labels: 9 scf_not_converged" in text
    assert "dubito retry && snakemake --cores 2" in text
    early = Planted(planted.base / "early")
    early.explore(0)
    early.start("build_dataset", 0)
    early.end("paused", "build_dataset", 0, wall=1, reason="too few")
    write_json(early.folder / "summary.json", {"state": "paused", "reason": "1 label in all.", "iterations": 0})
    found = look(early)
    assert (found.situation.state, found.situation.reason, found.problems) == ("paused", "1 label in all.", [])


def test_finished(planted: Planted) -> None:
    planted.iteration(0)
    planted.iteration(1, state="certified", reason="It is safe.")
    write_text(planted.folder / "report" / "index.html", "<html>")
    text = flat(shown(planted))
    assert "planted: certified. It is safe." in text
    assert "Next: open" in text
    assert "report/index.html in a browser" in text
    assert "rest, at most" not in text


def test_limits_raised_after_the_end(planted: Planted) -> None:
    planted.iteration(0, state="max_iterations", reason="All are done.")
    planted.drive()
    assert look(planted).situation.state == "running"
    planted.event("started", "explore_structures", 1, "0", pid=os.getpid())
    (planted.folder / "state" / "driver.json").unlink()
    assert look(planted).situation.state == "orphaned"


# --- what ended without result ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "more", "words"),
    [
        ("died", {"reason": "out_of_memory"}, "label_structures 000, iteration 0 {} out of memory (it had 2000 MB)"),
        ("died", {"reason": "timeout"}, "ran out of its time limit (30 min)"),
        ("died", {"reason": "node_fail"}, "its node failed"),
        ("died", {"reason": "cancelled"}, "was cancelled (scancel)"),
        ("died", {"reason": "unknown"}, "ended without a word"),
        ("died", {"reason": "eaten_by_a_bear"}, "eaten_by_a_bear"),
        ("interrupted", {"signal": "SIGUSR1"}, "SIGUSR1 asked it to stop; its state is kept"),
        ("interrupted", {"reason": str(Interrupted("SIGTERM"))}, "SIGTERM asked this job to stop. Its state is kept"),
    ],
)  # fmt: skip
def test_ends_in_words(planted: Planted, event: str, more: dict[str, Any], words: str) -> None:
    planted.explore(0)
    slurm_log = planted.base / "results/slurm_logs/rule_label_structures/planted_000_000/55.log"
    write_text(slurm_log, "slurmstepd: error")
    planted.start("label_structures", 0, "000", slurm_job="55", mem_mb=2000, runtime_min=30)
    planted.clock += 40
    planted.event(event, "label_structures", 0, "000", slurm_job="55", **more)
    text = flat(shown(planted))
    assert words.format("at " + time.strftime("%H:%M", time.localtime(planted.clock)) + " after 40 s") in text
    assert "log: results/planted/logs/iter_000/label_structures_000.log" in text
    assert "Slurm's: results/slurm_logs/rule_label_structures/planted_000_000/55.log" in text


def test_what_was_made_good_alarms_nobody(planted: Planted) -> None:
    planted.drive()
    planted.explore(0)
    for number, reason in (("1", "out_of_memory"), ("2", "timeout"), ("3", "out_of_memory")):
        planted.start("label_structures", 0, "000", slurm_job=number)
        planted.event("died", "label_structures", 0, "000", reason=reason, slurm_job=number)
    planted.event("started", "label_structures", 0, "000", pid=os.getpid())
    text = flat(shown(planted))
    assert text.count("it runs again") == 3
    planted.shard_done(0, 0, 0, 100)
    planted.shard_done(0, 1, 0, 100)
    text = flat(shown(planted))
    assert "made good: 2 out of memory, 1 ran out of its time limit" in text
    assert "died:" not in text


def test_died_is_said_of_the_run_it_is_about(planted: Planted) -> None:
    """The driver may find out why a run ended after the next one has begun."""
    planted.start("label_structures", 0, "000", slurm_job="1")
    planted.start("label_structures", 0, "000", slurm_job="2")
    planted.event("died", "label_structures", 0, "000", slurm_job="1", reason="node_fail")
    planted.shard_done(0, 0, 0, 10)
    kinds = [(p.kind, p.slurm_job, p.fate) for p in look(planted).problems]
    assert kinds == [("died", "1", "over")]


def test_a_failure_that_the_campaign_went_past_is_over(planted: Planted) -> None:
    planted.explore(0)
    planted.start("fit_uncertainty", 0, "gmm")
    planted.end("failed", "fit_uncertainty", 0, "gmm", wall=1, error="ModelError: no")
    assert look(planted).problems[0].fate == "open"
    planted.label(0)
    planted.finish(0)
    assert look(planted).problems[0].fate == "over"


# --- labels and quality -------------------------------------------------------------------------------


def test_failures_are_counted_by_reason(tmp_path: Path) -> None:
    planted = Planted(tmp_path, max_labels=40)
    planted.iteration(0, failed=2)
    planted.explore(1)
    planted.label(1, failed=3, reason="net_force, scf_not_converged")
    found = look(planted).labels
    # Two reasons of one shard are only told by its report.
    assert found.reasons == {"scf_not_converged": 3, "net_force": 2}
    assert (found.total, found.failed, found.spent, found.max_labels) == (15, 5, 20, 40)
    assert "failed labels: 3 scf_not_converged, 2 net_force" in flat(shown(planted))
    assert "20 of 40 of the budget spent" in flat(shown(planted))


def test_labels_taken_back_are_no_longer_failed(planted: Planted) -> None:
    planted.explore(0)
    planted.beat(0, 0, done=3, failed=2)
    assert look(planted).labels.failed == 2
    planted.clock += 10
    planted.event("retried", "retry", 0)
    found = look(planted).labels
    assert (found.failed, found.batch.done if found.batch else None) == (0, 3)


def test_the_words_of_labelling_jobs_are_understood() -> None:
    """The counts are taken from what the stage says, so that no report has to be opened."""
    from dubito.cli.status.labels import _SAID
    from dubito.stages.label_structures import _said

    failed = [{"reason": "net_force"}, {"reason": "crashed"}]
    for summary, expected in (
        ({"done": 5, "reused": 0, "failed": []}, ("5", "7", None, None)),
        ({"done": 5, "reused": 2, "failed": failed}, ("5", "7", "2", "crashed, net_force")),
        ({"done": 6, "reused": 0, "failed": failed[:1]}, ("6", "7", "1", "net_force")),
    ):
        match = _SAID.match(_said(summary, 7))
        assert match is not None
        assert match.groups() == expected


def test_quality_and_driver(planted: Planted) -> None:
    for k in range(12):
        planted.iteration(k)
    text = shown(planted)
    assert "   11    120      0    0 meV/Å valid       0     0% (<= 4%)  inversion +4 meV" in text
    assert "4 earlier iterations" in text
    assert "risk 10%: within (4 controls)" in flat(text)
    assert "driver: ensemble. uncertainty.acquire_with names it." in text


def test_certificate_and_plan_in_a_line_each(planted: Planted) -> None:
    planted.iteration(0)
    planted.iteration(1)
    folder = planted.folder / "iter_001"
    metrics, decision = (json.loads((folder / name).read_text()) for name in ("metrics.json", "decision.json"))
    metrics["certificate"] = {"holds": True, "accepted_fraction": 0.93, "bound": 0.0476, "n_control": 20, "drift": None}
    decision["plan"] = {
        "target_ev_per_angstrom": 0.0432,
        "labels_to_target": {"q10": 90, "q50": 129, "q90": None},
        "probability_unreachable": 0.137,
    }
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "decision.json", decision)
    text = flat(shown(planted))
    assert (
        "certificate holds: 93% of the pool accepted (20 controls), chosen so that at most 10% of these are "
        "expected to have a force error above 0.3 eV/Å" in text
    )
    assert "plan: a force RMSE of 43 meV/Å takes about 129 labels (out of reach with a probability of 14%)" in text
    metrics["certificate"] |= {"holds": False, "accepted_fraction": 0.0, "bound": 0.0, "drift": {"drifted": True}}
    decision["plan"]["labels_to_target"]["q50"] = None
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "decision.json", decision)
    text = flat(shown(planted))
    assert "does not hold yet: 0% of the pool accepted (20 controls); it has drifted since" in text
    assert "takes over twice the labels of its last point" in text
    # Of another version, or damaged: nothing is said of it.
    metrics["certificate"], decision["plan"] = {"holds": "yes"}, [1, 2]
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "decision.json", decision)
    text = flat(shown(planted))
    assert "certificate" not in text
    assert "plan:" not in text


# --- the screen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_full_screen_fits(tmp_path: Path, width: int) -> None:
    planted = Planted(tmp_path, name="a-campaign-with-a-name-of-forty-eight-characters", shards=20, max_labels=10_000)
    planted.drive()
    for k in range(9):
        planted.iteration(k, failed=2)
    planted.explore(9)
    for shard in range(20):
        if shard % 2:
            planted.start("label_structures", 9, f"{shard:03d}")
            planted.end("failed", "label_structures", 9, f"{shard:03d}", wall=3, error="DataError: " + "long " * 100)
        else:
            planted.event("started", "label_structures", 9, f"{shard:03d}", pid=os.getpid())
    assert "more jobs" in shown(planted, width=width)
    lines = screen(look(planted), width, 24)
    assert len(lines) <= 24
    assert any(line.text.startswith("Next: ") for line in lines)


def test_no_text_reaches_the_terminal_raw(planted: Planted) -> None:
    planted.explore(0)
    planted.start("label_structures", 0, "000")
    planted.end("failed", "label_structures", 0, "000", wall=1, error="\x1b[2J\x07gone\n\n[bold]tag[/bold]")
    text = shown(planted)
    assert "\x1b" not in text and "\x07" not in text
    assert "[2J gone [bold]tag[/bold]" in text


def test_plain_in_a_pipe_and_stable_json(planted: Planted) -> None:
    planted.iteration(0)
    done = dubito(planted)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith("planted: ")
    assert done.stdout.rstrip().splitlines()[-1].startswith(("Next: ", "  "))
    found = json.loads(dubito(planted, "--json").stdout)
    documented = (Path(__file__).parents[2] / "docs" / "running.md").read_text().split("### For scripts")[1]
    for key in found:
        assert f"`{key}`" in documented, f"{key} is not documented"
    assert set(found) == {
        "state", "reason", "is_running", "campaign", "time", "last_sign", "snakemake", "iteration", "max_iterations",
        "steps", "running", "queued", "queue_problem", "finished", "labels", "quality", "plan", "driver", "cost",
        "forecast", "problems", "next", "is_on_slurm",
    }  # fmt: skip
    assert set(found["labels"]) == {"batch", "total", "failed", "spent", "max_labels", "reasons"}
    assert set(found["cost"]) == {
        "cpu_hours", "gpu_hours", "dft_cpu_hours", "wall_hours", "running_cpu_hours", "lost_jobs", "lost_cpu_hours",
        "lost_gpu_hours", "lost_unknown_jobs", "epochs_repeated",
    }  # fmt: skip
    assert set(found["forecast"]) == {
        "iterations_left", "labels_left", "cpu_hours", "gpu_hours", "dft_cpu_hours", "wall_hours", "batch_wall_hours",
        "based_on_iterations", "deviation", "not_measured",
    }  # fmt: skip
    assert set(found["next"]) == {"words", "command"}


def test_on_a_terminal_it_has_colours_unless_told_otherwise(planted: Planted) -> None:
    pty = pytest.importorskip("pty")
    planted.iteration(0)
    command = [sys.executable, "-c", "from dubito.cli import main; main()", "status", "--config", "config.yaml"]
    said = {}
    for name, value in (("colours", ""), ("none", "1")):
        master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": value}
        if not value:
            del environment["NO_COLOR"]
        subprocess.run(command, cwd=planted.base, stdout=slave, check=True, env=environment, timeout=60)
        os.close(slave)
        said[name] = os.read(master, 65536).decode()
        os.close(master)
    assert "\x1b[1m" in said["colours"]
    assert "\x1b" not in said["none"]
    assert "planted: not running" in said["none"]


def test_watch_ends_quietly(planted: Planted) -> None:
    import signal

    planted.iteration(0)
    command = [sys.executable, "-c", "from dubito.cli import main; main()", "status", "--config", "config.yaml"]
    process = subprocess.Popen(
        [*command, "--watch", "0.5", "--json"],
        cwd=planted.base, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    planted.start("explore_structures", 1, "0", host="elsewhere")
    while True:
        found = json.loads(process.stdout.readline())
        if found["running"]:
            break
    assert (first["running"], found["running"][0]["stage"]) == ([], "explore_structures")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")


def test_watch_on_a_terminal_leaves_the_last_screen(planted: Planted) -> None:
    import signal

    pty = pytest.importorskip("pty")
    planted.iteration(0)
    command = [sys.executable, "-c", "from dubito.cli import main; main()", "status", "--config", "config.yaml"]
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [*command, "--watch", "0.5"], cwd=planted.base, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    said = b""
    while b"Ctrl-C ends" not in said:
        said += os.read(master, 65536)
    process.send_signal(signal.SIGINT)
    while True:
        try:
            more = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        said += more
    assert process.wait(timeout=20) == 0
    # Behind the alternative screen, which disappears.
    _, _, after = said.decode().rpartition("\x1b[?1049l")
    assert "planted: not running" in after
    assert "Next: " in after
    assert "Traceback" not in said.decode()
