"""What a retry asks for: how earlier attempts ended, what the partition can give, and guesses from the work."""

from __future__ import annotations

import os
import stat
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dubito.config import parse_config
from dubito.core import progress as progress_module
from dubito.core.heartbeat import beat, labelling_heartbeat
from dubito.core.progress import read, record
from dubito.core.slurm.asking import minutes
from dubito.core.slurm.limits import Job
from dubito.data.store import write_structures
from dubito.testing.structures import rattled
from dubito.workflow import attempts as attempts_module
from dubito.workflow import work
from dubito.workflow.attempts import Attempts, key_of
from dubito.workflow.escalation import Requests, SnakemakePlace
from dubito.workflow.slurm_facts import KnownSite, ended_as
from dubito.workflow.submissions import Submissions

SHARD = {"campaign": "toy", "iteration": "001", "shard": "002"}
KEY = ("label_structures", 1, "002")


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "toy"
    folder.mkdir(parents=True)
    return folder


def event(campaign: Path, kind: str, job: str | None = "11", **more: Any) -> None:
    """Write an event of the labelling job; a start names its Slurm job."""
    named = {"slurm_job": job, "runtime_min": 60} if kind == "started" else {}
    whose = {"stage": "label_structures", "iteration": 1, "part": "002"}
    record(campaign / "progress.jsonl", event=kind, **{**whose, **named, **more})


class Slurm:
    """Answers as it is told, and counts the questions."""

    def __init__(self, **answers: str | None) -> None:
        self.answers = {key.removeprefix("job"): value for key, value in answers.items()}
        self.asked: list[str] = []

    def __call__(self, job: str) -> str | None:
        self.asked.append(job)
        return self.answers[job]


def doublings(attempts: Attempts, attempt: int) -> tuple[int, int]:
    return attempts.doublings("memory", KEY, attempt), attempts.doublings("time", KEY, attempt)


# --- how attempts ended -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("out_of_memory", (1, 0)),
        ("timeout", (0, 1)),
        ("node_fail", (0, 0)),
        ("cancelled", (0, 0)),
        ("near_limit", (0, 1)),
        ("unknown", (1, 1)),
        (None, (1, 1)),  # no answer at all
    ],
)
def test_what_killed_a_job_decides_what_is_doubled(
    campaign: Path, answer: str | None, expected: tuple[int, int]
) -> None:
    event(campaign, "started")
    slurm = Slurm(job11=answer)
    attempts = Attempts(campaign, slurm)
    assert doublings(attempts, 2) == expected
    assert doublings(attempts, 2) == expected, "asking again changes nothing"
    assert slurm.asked == ["11"]
    died = [e for e in read(campaign / "progress.jsonl") if e["event"] == "died"]
    if answer is None:
        assert died == []
    else:
        assert [(e["reason"], e["slurm_job"], e["stage"], e["part"]) for e in died] == [
            ("timeout" if answer == "near_limit" else answer, "11", "label_structures", "002")
        ]


def test_deaths_add_up_and_the_end_of_the_job_forgives_them(campaign: Path) -> None:
    slurm = Slurm(job11="out_of_memory", job12="timeout", job13="out_of_memory")
    attempts = Attempts(campaign, slurm)
    assert doublings(attempts, 1) == (0, 0)
    event(campaign, "started", "11")
    assert doublings(attempts, 2) == (1, 0)
    event(campaign, "started", "12")
    assert doublings(attempts, 3) == (1, 1)
    event(campaign, "started", "13")
    assert doublings(attempts, 4) == (2, 1)
    event(campaign, "started", "14")
    event(campaign, "finished")
    assert doublings(attempts, 1) == (0, 0)


def test_a_driver_that_starts_anew_does_not_repeat_a_death(campaign: Path) -> None:
    event(campaign, "started", "11")
    assert doublings(Attempts(campaign, Slurm(job11="out_of_memory")), 2) == (1, 0)
    # That driver is killed; in the next one the attempt is the first again.
    silent = Slurm()
    assert doublings(Attempts(campaign, silent), 1) == (1, 0)
    assert silent.asked == []
    # Or it was killed before it could ask.
    event(campaign, "started", "12")
    restarted = Attempts(campaign, Slurm(job12="out_of_memory"))
    assert doublings(restarted, 1) == (2, 0)
    # Its own second attempt, of which nothing is known, has no known cause.
    assert doublings(restarted, 2) == (3, 1)


def test_an_attempt_that_left_no_trace_has_an_unknown_cause(campaign: Path) -> None:
    assert doublings(Attempts(campaign, Slurm()), 3) == (2, 2)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("cancelled", (0, 0)),
        ("node_fail", (0, 0)),
        ("out_of_memory", (1, 0)),
        ("timeout", (0, 1)),
        ("unknown", (1, 1)),
        (None, (1, 1)),
    ],
)
def test_slurm_is_asked_for_a_job_that_never_said_that_it_began(
    campaign: Path, answer: str | None, expected: tuple[int, int]
) -> None:
    submissions = Submissions()
    submissions.note(submitted(1), "11")
    attempts = Attempts(campaign, Slurm(job11=answer), submissions)
    assert doublings(attempts, 2) == doublings(attempts, 2) == expected


def test_what_was_refused_or_cancelled_in_the_queue_asks_for_no_more(campaign: Path) -> None:
    submissions = Submissions()
    attempts = Attempts(campaign, Slurm(job12="cancelled", job13="cancelled", job14="out_of_memory"), submissions)
    submissions.note(submitted(1), None)
    assert doublings(attempts, 2) == (0, 0)
    submissions.note(submitted(2), "12")
    submissions.note(submitted(3), "13")
    assert doublings(attempts, 4) == (0, 0)
    # Beside what is in the file: one that ran, and ran out of memory.
    submissions.note(submitted(4), "14")
    event(campaign, "started", "14")
    assert doublings(attempts, 5) == (1, 0)
    # Without the guard nothing is known of them.
    assert doublings(Attempts(campaign, Slurm(job14="out_of_memory")), 5) == (4, 3)


def submitted(attempt: int) -> Any:
    rule = SimpleNamespace(name="label_structures")
    return SimpleNamespace(rule=rule, wildcards_dict=SHARD, attempt=attempt)


def test_the_jobs_own_word_is_enough(campaign: Path) -> None:
    slurm = Slurm()
    attempts = Attempts(campaign, slurm)
    event(campaign, "started")
    event(campaign, "failed", reason="error")
    assert doublings(attempts, 2) == (0, 0)
    event(campaign, "started")
    event(campaign, "failed", reason="out_of_memory")
    assert doublings(attempts, 3) == (1, 0)
    assert slurm.asked == []


@pytest.mark.parametrize(
    ("answer", "signal", "after_min", "expected"),
    [
        ("timeout", "SIGTERM", 60, (0, 1)),
        ("cancelled", "SIGTERM", 60, (0, 0)),
        ("unknown", "SIGTERM", 57, (0, 1)),  # Slurm has forgotten; it had used its time up
        ("unknown", "SIGTERM", 5, (0, 0)),
        ("unknown", "SIGUSR1", 5, (0, 1)),
    ],
)
def test_a_job_that_ended_itself_in_time_is_judged_too(
    campaign: Path, answer: str, signal: str, after_min: float, expected: tuple[int, int]
) -> None:
    event(campaign, "started", time=1000.0)
    event(campaign, "interrupted", time=1000.0 + 60 * after_min, signal=signal)
    assert doublings(Attempts(campaign, Slurm(job11=answer)), 2) == expected


def test_a_job_that_lives_is_left_alone(campaign: Path) -> None:
    event(campaign, "started")
    attempts = Attempts(campaign, Slurm(job11="alive"))
    assert doublings(attempts, 1) == (0, 0)
    assert len(read(campaign / "progress.jsonl")) == 1


def test_the_end_that_slurm_is_busy_with_is_waited_for(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event(campaign, "started")
    answers = iter(["ending", "ending", "timeout"])
    monkeypatch.setattr(attempts_module.time, "sleep", lambda s: None)
    assert doublings(Attempts(campaign, lambda job: next(answers)), 2) == (0, 1)


def test_jobs_on_nodes_and_those_who_only_look_ask_nobody_and_write_nothing(campaign: Path) -> None:
    event(campaign, "started", "11")
    event(campaign, "died", slurm_job="11", reason="timeout")
    before = (campaign / "progress.jsonl").read_bytes()
    assert doublings(Attempts(campaign, None), 2) == (0, 1), "it comes to what the driver came to"
    assert (campaign / "progress.jsonl").read_bytes() == before


def test_a_job_beside_the_driver_is_not_asked_for(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver may itself be a Slurm job, whose number its local jobs show."""
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    event(campaign, "started", "11")
    assert doublings(Attempts(campaign, Slurm()), 1) == (0, 0)
    event(campaign, "started", None)
    assert doublings(Attempts(campaign, Slurm()), 1) == (0, 0)


def test_the_structure_in_hand_is_written_down_if_it_was_this_jobs(campaign: Path) -> None:
    event(campaign, "started", "11")
    beat(labelling_heartbeat(campaign, 1, 2), in_flight="abc", slurm_job="11")
    doublings(Attempts(campaign, Slurm(job11="timeout")), 2)
    event(campaign, "started", "12")
    doublings(Attempts(campaign, Slurm(job12="timeout")), 3)
    event(campaign, "started", "13")
    beat(labelling_heartbeat(campaign, 1, 2), in_flight="abc", slurm_job="13")
    doublings(Attempts(campaign, Slurm(job13="near_limit")), 3)
    died = [e["in_flight"] for e in read(campaign / "progress.jsonl") if e["event"] == "died"]
    assert died == ["abc", None, None]


def test_the_file_is_read_on_not_again(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(campaign, Slurm(job11="timeout"))
    for _ in range(50):
        event(campaign, "started", None, part="other")
    doublings(attempts, 1)
    parsed: list[str] = []
    real = progress_module.json.loads

    def loads(text: str) -> Any:
        parsed.append(text)
        return real(text)

    monkeypatch.setattr(progress_module.json, "loads", loads)
    doublings(attempts, 1)
    assert parsed == []
    event(campaign, "started", "11")
    with (campaign / "progress.jsonl").open("a") as file:
        file.write('{"event": "sta')  # a writer that was killed
    assert doublings(attempts, 2) == (0, 1)
    assert not any("other" in line for line in parsed)
    assert [e["event"] for e in read(campaign / "progress.jsonl")][50:] == ["started", "died"], (
        "half a line spoils none"
    )


def test_damaged_lines_are_passed_over(campaign: Path) -> None:
    (campaign / "progress.jsonl").write_text("garbage\n[1]\n{}\n")
    event(campaign, "started", "11")
    assert doublings(Attempts(campaign, Slurm(job11="timeout")), 2) == (0, 1)


def test_jobs_are_told_apart() -> None:
    assert key_of("label_structures", SHARD) == KEY
    assert key_of("fit_uncertainty", {"iteration": "000", "method": "llpr"}) == ("fit_uncertainty", 0, "llpr")
    assert key_of("prepare_reference", {"profile": "inversion"}) == ("prepare_reference", None, "inversion")


# --- Slurm ------------------------------------------------------------------------------------


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put made-up Slurm commands first in the path; each call is counted in a file."""

    def make(name: str, text: str, code: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program, calls = folder / name, folder / f"{name}.calls"
        body = f"""\
            #!{sys.executable}
            import sys
            open({str(calls)!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
            print({text!r}, file=sys.stderr if {code} else sys.stdout)
            sys.exit({code})
            """
        program.write_text(textwrap.dedent(body))
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return calls

    return make


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("JobState=FAILED Reason=NonZeroExitCode ExitCode=1:0 DerivedExitCode=0:125", "out_of_memory"),
        ("JobState=OUT_OF_MEMORY ExitCode=0:125 DerivedExitCode=0:0", "out_of_memory"),
        ("JobState=TIMEOUT ExitCode=0:15 DerivedExitCode=0:0", "timeout"),
        ("JobState=NODE_FAIL ExitCode=0:0 DerivedExitCode=0:0", "node_fail"),
        ("JobState=CANCELLED ExitCode=0:15 DerivedExitCode=0:0", "cancelled"),
        ("JobState=PREEMPTED ExitCode=0:15 DerivedExitCode=0:0", "cancelled"),
        ("JobState=FAILED ExitCode=137:0 DerivedExitCode=0:9", "unknown"),
        ("JobState=FAILED RunTime=00:58:40 TimeLimit=01:00:00 ExitCode=1:0 DerivedExitCode=0:0", "near_limit"),
        ("JobState=FAILED RunTime=00:20:00 TimeLimit=01:00:00 ExitCode=1:0 DerivedExitCode=0:0", "unknown"),
        ("JobState=FAILED RunTime=00:01:00 TimeLimit=00:05:00 ExitCode=1:0 DerivedExitCode=0:0", "unknown"),
        ("JobState=FAILED RunTime=00:04:50 TimeLimit=UNLIMITED ExitCode=1:0 DerivedExitCode=0:0", "unknown"),
        ("JobState=FAILED RunTime=00:59:00 TimeLimit=01:00:00 ExitCode=1:0 DerivedExitCode=0:125", "out_of_memory"),
        ("JobState=COMPLETED ExitCode=0:0 DerivedExitCode=0:0", "completed"),
        ("JobState=RUNNING ExitCode=0:0 DerivedExitCode=0:0", "alive"),
        ("JobState=PENDING ExitCode=0:0 DerivedExitCode=0:0", "alive"),
        ("JobState=COMPLETING ExitCode=0:15 DerivedExitCode=0:0", "ending"),
    ],
)
def test_what_scontrol_says(commands: Callable[..., Path], fields: str, expected: str) -> None:
    calls = commands("scontrol", f"JobId=11 JobName=x UserId=root(0) {fields} NumNodes=1")
    assert ended_as("11") == expected
    assert calls.read_text() == "--details --oneliner show job 11\n"


def test_a_forgotten_job_and_a_silent_controller_are_two_things(commands: Callable[..., Path]) -> None:
    commands("scontrol", "slurm_load_jobs error: Invalid job id specified", 1)
    assert ended_as("11") == "unknown"
    commands("scontrol", "slurm_load_jobs error: Unable to contact slurm controller", 1)
    assert ended_as("11") is None


def test_without_slurm_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert ended_as("11") is None
    assert KnownSite().most("minutes", Job()) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30", 30), ("1:00:00", 60), ("45:30", 45.5), ("2-00:00:00", 2880), ("1-12", 2160), ("7-00:30", 10110),
     ("infinite", None), ("n/a", None), ("UNLIMITED", None), ("Partition_Limit", None)],
)  # fmt: skip
def test_times_of_slurm(text: str, expected: float | None) -> None:
    assert minutes(text) == expected


SITE = """\
PartitionName=cpu Default=YES Hidden=NO MaxTime=01:00:00 MaxMemPerNode=UNLIMITED State=UP
PartitionName=long Default=NO Hidden=YES MaxTime=2-00:00:00 MaxMemPerNode=5000 State=UP
PartitionName=gpu Default=NO Hidden=NO MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED State=UP
NodeName=c1 CPUTot=8 RealMemory=16000 MemSpecLimit=1000 AvailableFeatures=(null) Gres=(null) Partitions=cpu,long
NodeName=c2 CPUTot=8 RealMemory=64000 AvailableFeatures=big Gres=(null) Partitions=cpu
NodeName=g1 CPUTot=8 RealMemory=8000 AvailableFeatures=(null) Gres=gpu:a100:2 Partitions=gpu,cpu
AccountingStorageType = accounting_storage/none"""


def most(site: KnownSite, **more: Any) -> tuple[int | None, int | None]:
    """Return memory and minutes of a job."""
    found = [site.most(kind, Job(**more)) for kind in ("mem_mb", "minutes")]
    return found[0] and found[0].amount, found[1] and found[1].amount


def test_what_a_job_can_get(commands: Callable[..., Path]) -> None:
    calls = commands("scontrol", SITE)
    site = KnownSite()
    assert most(site) == (64000, 60), "the default partition"
    assert most(site, constraint="[huge|big]") == (64000, 60)
    assert most(site, gpus=1) == (8000, 60), "the largest node does not help a job that needs another"
    assert most(site, gpus=3) == (None, 60), "which no amount of memory helps"
    assert most(site, partitions=("long",)) == (5000, 2880), "MaxMemPerNode, also of a hidden partition"
    assert most(site, partitions=("no_such",)) == (None, None), "not those of the default partition"
    assert most(site, partitions=("long", "no_such")) == (5000, 2880)
    assert most(site, partitions=("cpu", "long")) == (64000, 2880)
    assert most(site, partitions=("cpu", "gpu")) == (64000, None)
    limit = site.most("mem_mb", Job(("long",)))
    assert limit is not None and limit.by == "partition long (MaxMemPerNode)"
    asked = calls.read_text().splitlines()
    assert len(asked) == 3 and all("--all" in line for line in asked if not line.endswith("config")), "asked once"


def test_memory_that_a_node_keeps_for_itself_is_not_asked_for(commands: Callable[..., Path]) -> None:
    commands(
        "scontrol", "\n".join(line for line in SITE.splitlines() if not line.startswith(("NodeName=c2", "NodeName=g1")))
    )
    assert most(KnownSite()) == (15000, 60)


def test_a_silent_controller_is_not_asked_at_every_turn(commands: Callable[..., Path]) -> None:
    calls = commands("scontrol", "error", 1)
    site = KnownSite()
    assert [most(site) for _ in range(5)] == [(None, None)] * 5
    assert len(calls.read_text().splitlines()) == 1


# --- requests ---------------------------------------------------------------------------------


class Where:
    """A place of a Snakemake process, as a test wants it."""

    def __init__(self, *, is_driver: bool = True, runs_here: bool = False, given: int | None = None) -> None:
        self.is_driver, self.runs_here, self.given, self.only_looks = is_driver, runs_here, given, False

    def job(self, rule: str) -> Job:
        return Job(("cpu",))

    def warning_min(self) -> float:
        return 5

    def memory_given(self) -> int | None:
        return self.given


def ask(requests: Requests, attempt: int) -> tuple[int, int]:
    memory, time = requests.memory("label_structures", 2000), requests.minutes("label_structures", lambda w, i: 30)
    return memory(SHARD, None, attempt), time(SHARD, None, attempt)


def small_site(mem_mb: int, limit: str) -> str:
    return f"PartitionName=cpu Default=YES MaxTime={limit}\nNodeName=c1 RealMemory={mem_mb} Partitions=cpu\n"


def test_requests_are_doubled_and_cut(campaign: Path, commands: Callable[..., Path]) -> None:
    commands("scontrol", small_site(7000, "1:00:00") + "JobState=FAILED ExitCode=1:0 DerivedExitCode=0:125")
    requests = Requests(campaign, Where())
    assert ask(requests, 1) == (2000, 30)
    event(campaign, "started")
    assert ask(requests, 2) == (4000, 30)
    commands("scontrol", "JobState=TIMEOUT ExitCode=0:15 DerivedExitCode=0:0")
    event(campaign, "started", "12")
    assert ask(requests, 3) == (4000, 60)
    event(campaign, "started", "13")
    assert ask(requests, 4) == (4000, 60), "more than the partition allows would wait for ever"


def test_a_first_request_beyond_the_partition_is_cut_too(campaign: Path, commands: Callable[..., Path]) -> None:
    commands("scontrol", small_site(1500, "20:00"))
    assert ask(Requests(campaign, Where()), 1) == (1500, 20)


def test_on_this_machine_nobody_is_asked(campaign: Path, commands: Callable[..., Path]) -> None:
    calls = [commands("scontrol", small_site(1, "1:00") + "JobState=TIMEOUT")]
    event(campaign, "started")
    requests = Requests(campaign, Where(runs_here=True))
    assert ask(requests, 1) == (2000, 30)
    assert ask(requests, 2) == (4000, 60)
    assert not any(path.exists() for path in calls)
    assert len(read(campaign / "progress.jsonl")) == 1


def test_a_job_on_a_node_asks_nobody_and_has_what_it_was_given(
    campaign: Path, commands: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBITO_ATTEMPT", "1")
    calls = [commands("scontrol", small_site(1, "1:00") + "JobState=TIMEOUT")]
    event(campaign, "started")
    event(campaign, "died", slurm_job="11", reason="timeout")
    assert ask(Requests(campaign, Where(is_driver=False, given=3456)), 2) == (3456, 60)
    assert os.environ["DUBITO_ATTEMPT"] == "2", "which the script passes on"
    assert not any(path.exists() for path in calls)


# --- guesses ----------------------------------------------------------------------------------


def test_training_time_follows_the_work() -> None:
    demo = parse_config({})
    assert work.training_minutes(demo, 84) >= 30
    double = parse_config({"training": {"max_epochs": 4000}})
    assert work.training_minutes(double, 2000) > 15 * work.training_minutes(demo, 2000)
    alone = parse_config({"training": {"members_per_job": 1}})
    assert work.training_minutes(alone, 2000) < work.training_minutes(demo, 2000)
    steps = parse_config({"training": {"max_epochs": 10, "min_steps": 100_000}})
    assert work.training_minutes(steps, 50) > work.training_minutes(parse_config({"training": {"max_epochs": 10}}), 50)
    assert work.training_mb(demo, 5000) > work.training_mb(demo, 50) >= 4000


def test_exploring_and_scoring_follow_the_work() -> None:
    small, large = ({"sampling": {"sampler": {"kind": "langevin", "n_steps": n}}} for n in (1000, 100_000))
    assert work.exploring_minutes(parse_config(large)) > 50 * work.exploring_minutes(parse_config(small)) / 2
    assert work.scoring_minutes(parse_config(large)) > work.scoring_minutes(parse_config(small)) >= 60


def test_basis_functions_are_about_those_of_pyscf() -> None:
    from pyscf import gto

    for basis, tolerance in (("sto-3g", 0.01), ("def2-svp", 0.01), ("6-31g*", 0.15), ("def2-tzvp", 0.01),
                             ("cc-pvtz", 0.15)):  # fmt: skip
        molecule = gto.M(atom="C 0 0 0; O 0 0 1.2; H 0 1 -.5; H 0 -1 -.5; Cl 0 0 4", basis=basis, spin=1, verbose=0)
        assert work.basis_functions([6, 8, 1, 1, 17], basis) == pytest.approx(molecule.nao, rel=tolerance), basis


def test_memory_and_time_of_labels_grow_with_the_basis(tmp_path: Path) -> None:
    assert work.labelling_mb(None) == work.labelling_mb(0) == 2000
    assert work.labelling_mb(29) < 2100
    # 8 B * 5 * 500 * 500 * 501 / 2, twice.
    assert work.labelling_mb(500) == 2000 + 5010
    batch = {"n_selected": 18, "n_shards": 3}
    assert work.labelling_minutes(batch, 300) == work.labelling_minutes(batch) == 15 + 6 * 15
    assert work.labelling_minutes(batch, 600) == 15 + 6 * 15 * 8
    config = parse_config({"labelling": {"labeller": {"kind": "pyscf", "basis": "def2-tzvp"}}})
    write_structures(tmp_path / "s.h5", rattled(3, molecules="ammonia"))
    assert work.batch_mb(config, tmp_path / "s.h5") == work.labelling_mb(31 + 3 * 6)
    assert work.batch_mb(config, tmp_path / "missing.h5") == 2000
    (tmp_path / "bad.h5").write_bytes(b"no")
    assert work.batch_mb(config, tmp_path / "bad.h5") == 2000


def test_a_place_reads_what_snakemake_was_told() -> None:
    from snakemake.resources import Resources

    own = Resources.from_mapping({"gpu": lambda wildcards: 1})
    settings = SimpleNamespace(
        overwrite_resources={
            "train_ensemble": {"slurm_partition": "long, gpu", "gpu": 2, "slurm_extra": "'--signal=B:TERM@900 --x=1'"}
        },
        default_resources=Resources.from_mapping(
            {"slurm_partition": "cpu", "constraint": "a|b", "mem_mb": 2000, "slurm_extra": "'--signal=TERM@180'"}
        ),
        resources={"mem_mb": 3000},
    )
    workflow = SimpleNamespace(
        is_main_process=False,
        local_exec=True,
        resource_settings=settings,
        get_rule=lambda name: SimpleNamespace(resources=own if name == "explore_structures" else {}),
    )
    place = SnakemakePlace(workflow, only_looks=False)
    assert place.job("train_ensemble") == Job(("long", "gpu"), constraint="a|b", gpus=2)
    assert place.job("evaluate") == Job(("cpu",), constraint="a|b")
    assert place.job("explore_structures").gpus == 1
    assert place.memory_given() == 3000
    assert place.warning_min() == 16, "the longest, and the minute that Slurm may be early"
    settings.default_resources = None
    settings.overwrite_resources = {}
    settings.resources = {}
    assert place.job("evaluate") == Job()
    assert place.memory_given() is None and place.warning_min() == 5


def test_a_number_in_the_profile_is_a_first_guess(campaign: Path, commands: Callable[..., Path]) -> None:
    from snakemake.resources import Resources

    commands("scontrol", small_site(20000, "3:00:00"))
    given = Resources.from_mapping({"mem": "8GB", "runtime": "1h"})
    expression = Resources.from_mapping({"mem_mb": lambda wildcards, attempt: 10 * attempt})
    rules = [
        SimpleNamespace(name="label_structures", resources=Resources.from_mapping({"mem_mb": 8000, "runtime": 60})),
        SimpleNamespace(name="decide", resources=expression.copy()),
        SimpleNamespace(name="evaluate", resources=Resources.from_mapping({"mem_mb": 1000})),
    ]
    settings = SimpleNamespace(overwrite_resources={"label_structures": given, "decide": expression})
    Requests(campaign, Where()).adopt(SimpleNamespace(rules=rules, resource_settings=settings))
    asked = [
        [rules[0].resources[name].evaluate(SHARD, input=None, attempt=attempt).value for name in ("mem_mb", "runtime")]
        for attempt in (1, 2, 3)
    ]
    assert asked == [[8000, 60], [16000, 120], [20000, 180]]
    assert rules[1].resources["mem_mb"].evaluate(SHARD, attempt=3).value == 30
    assert rules[2].resources["mem_mb"].value == 1000, "no rule of the profile's"


@pytest.mark.parametrize(("lasted_min", "reason"), [(49, "timeout"), (20, "cancelled")])
def test_a_long_warning_is_still_a_matter_of_time(campaign: Path, lasted_min: int, reason: str) -> None:
    """With ``warning_seconds: 600`` a job of an hour is told to end after 49 or 50 minutes."""
    event(campaign, "started", time=1e9)
    event(campaign, "interrupted", signal="SIGTERM", time=1e9 + 60 * lasted_min)
    attempts = Attempts(campaign, Slurm(job11="unknown"), warning_min=11)
    assert doublings(attempts, 2) == ((0, 1) if reason == "timeout" else (0, 0))
    assert [e["reason"] for e in read(campaign / "progress.jsonl") if e["event"] == "died"] == [reason]


def test_what_scontrol_says_of_a_long_warning(commands: Callable[..., Path]) -> None:
    commands("scontrol", "JobState=FAILED RunTime=00:49:30 TimeLimit=01:00:00 ExitCode=1:0 DerivedExitCode=0:0")
    assert ended_as("11", warning_min=11) == "near_limit"
    assert ended_as("11") == "unknown"
