"""The glue between Snakemake and the stages: arguments, guards of the driver, one stage as a job."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from dubito.config import Config
from dubito.config.labelling import LabellingConfig, TeacherConfig
from dubito.core.errors import DataError, EnvironmentFault, MemoryFault
from dubito.core.interrupt import Interrupted
from dubito.core.locks import exclusive, is_alive, process_start
from dubito.core.progress import job_event, read
from dubito.workflow import driver
from dubito.workflow.arguments import convert_arguments, stage_arguments
from dubito.workflow.campaign import SNAPSHOT_VARIABLE, freeze_config, labels_spent, load_campaign
from dubito.workflow.stage import _limit_pyscf, run_stage
from dubito.workflow.versions import STAGE_VERSIONS, stage_version

ROOT = Path(__file__).parents[2]


class Named(list[Any]):
    """A stand-in for Snakemake's named lists."""

    def __init__(self, *unnamed: Any, **named: Any) -> None:
        super().__init__([*unnamed, *named.values()])
        self._named = named

    def items(self) -> Any:
        return self._named.items()

    def get(self, name: str, default: Any) -> Any:
        return self._named.get(name, default)


def job(**parts: Any) -> types.SimpleNamespace:
    """A stand-in for the object Snakemake gives to scripts."""
    empty: dict[str, Any] = {key: Named() for key in ("input", "output", "params", "wildcards", "resources")}
    config = {"campaign": {"name": "toy", "max_iterations": 4}}
    return types.SimpleNamespace(
        **{**empty, "threads": 2, "log": ["results/toy/logs/x.log"], "config": config, **parts}
    )


# --- arguments ------------------------------------------------------------------------------------------


def stage(
    *,
    previous: Path | None,
    shards: list[Path],
    output: Path,
    labelling: LabellingConfig,
    files: list[str],
    members: list[int],
    remaining: int | None,
    iteration: int,
    shard: int,
    threads: int,
) -> str:
    """A stage with all kinds of arguments."""
    return str(locals())


def test_arguments_become_what_the_stage_asks_for() -> None:
    found = stage_arguments(
        stage,
        job(
            input=Named("unnamed.h5", previous=[], shards="one.h5", files=["a.xyz"], only_for_order="b.json"),
            output=Named(output="out.h5"),
            params=Named(
                stage=3,
                rerun_for={"max_epochs": 9},
                labelling={"labeller": {"kind": "teacher"}},
                members=[0, 1],
                remaining=None,
            ),
            wildcards=Named(campaign="toy", iteration="007", shard="012"),
        ),
    )
    assert found["previous"] is None
    assert found["shards"] == [Path("one.h5")]
    assert found["files"] == ["a.xyz"]
    assert found["output"] == Path("out.h5")
    assert found["labelling"].labeller == TeacherConfig(kind="teacher")
    assert (found["members"], found["remaining"]) == ([0, 1], None)
    assert (found["iteration"], found["shard"], found["threads"]) == (7, 12, 2)
    assert set(found) == set(inspect.signature(stage).parameters)


def test_no_shard_is_an_empty_list_and_one_previous_is_a_path() -> None:
    def run(*, shards: list[Path], previous: Path | None) -> str:
        return ""

    assert convert_arguments(run, {"shards": [], "previous": ["a.h5"]}) == {"shards": [], "previous": Path("a.h5")}


def test_rule_and_stage_that_disagree_are_a_bug_with_names() -> None:
    def run(*, output: Path, seed: int) -> str:
        return ""

    with pytest.raises(TypeError, match=r"not taken by the stage: \['sead'\].*missing in the rule: \['seed'\]"):
        convert_arguments(run, {"output": "x", "sead": 1})


def test_every_rule_has_a_script_and_every_stage_a_version() -> None:
    rules = {}
    # Studies are no campaigns: their one script has no stage.
    for path in set((ROOT / "workflow" / "rules").glob("*.smk")) - {ROOT / "workflow" / "rules" / "studies.smk"}:
        for block in re.split(r"\n(?=rule |checkpoint )", path.read_text()):
            if match := re.match(r"(?:#.*\n)*(?:rule|checkpoint) (\w+):", block):
                rules[match.group(1)] = block
    scripts = {path.stem for path in (ROOT / "workflow" / "scripts").glob("*.py")}
    assert scripts == set(rules) | {"study"}
    for name, block in rules.items():
        assert f'"../scripts/{name}.py"' in block
        (version_of,) = re.findall(r'stage_version\("(\w+)"\)', block)
        assert f'run_stage("{version_of}", snakemake)' in (ROOT / "workflow" / "scripts" / f"{name}.py").read_text()
        for directive in ("log:", "conda:", "threads:", "mem_mb=", "runtime=", "message:"):
            assert directive in block, f"{name} lacks {directive}"
    assert {path.stem for path in (ROOT / "src/dubito/stages").glob("[a-z]*.py")} == set(STAGE_VERSIONS)


def test_unknown_stage_is_named() -> None:
    assert stage_version("decide") >= 1
    with pytest.raises(EnvironmentFault, match="Did you mean 'decide'"):
        stage_version("decides")


# --- the driver -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign folder with the locks of two campaigns."""
    monkeypatch.chdir(tmp_path)
    driver.LOCKS.mkdir(parents=True)
    (driver.LOCKS / "0.output.lock").write_text("results/toy/iter_000/dataset.h5\nresults/toy/report/index.html\n")
    (driver.LOCKS / "0.input.lock").write_text("results/toy/iter_000/dataset.h5\n")
    (driver.LOCKS / "1.output.lock").write_text("results/toy2/report/index.html\n")
    return tmp_path


def write_driver(**changes: Any) -> None:
    path = Path("results/toy/state/driver.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {"pid": os.getpid(), "host": socket.gethostname(), "process_start": process_start(os.getpid())}
    path.write_text(json.dumps({**own, "time": 0.0, **changes}))


def test_locks_of_a_killed_driver_are_removed_and_those_of_others_stay(folder: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_driver(pid=dead.pid, process_start="1")
    driver.claim_campaign("toy")
    assert sorted(p.name for p in driver.LOCKS.iterdir()) == ["1.output.lock"]
    claimed = json.loads(Path("results/toy/state/driver.json").read_text())
    assert claimed["pid"] == os.getpid()
    assert is_alive(claimed)


def test_a_living_driver_is_named_and_keeps_its_locks(folder: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        write_driver(pid=other.pid, process_start=process_start(other.pid))
        with pytest.raises(EnvironmentFault, match=f"process {other.pid} .*dubito status"):
            driver.claim_campaign("toy")
        assert len(list(driver.LOCKS.iterdir())) == 3
    finally:
        other.kill()
        other.wait()
    driver.claim_campaign("toy")


def test_a_reused_process_number_is_no_living_driver(folder: Path) -> None:
    write_driver(pid=1, process_start="started in another age")
    driver.refuse_second_driver("toy")


def test_a_driver_elsewhere_is_refused_until_its_file_is_removed(folder: Path) -> None:
    write_driver(host="node17", pid=os.getpid())  # a number of this machine says nothing there
    Path("results/toy/state/driver.lock").write_text("pid 123 on node17\n")
    with pytest.raises(EnvironmentFault, match=r"node17.*rm results/toy/state/driver\.json") as fault:
        driver.claim_campaign("toy")
    assert "unlock" not in str(fault.value) and len(list(driver.LOCKS.iterdir())) == 3
    Path("results/toy/state/driver.json").unlink()
    driver.claim_campaign("toy")
    assert [path.name for path in driver.LOCKS.iterdir()] == ["1.output.lock"], "the locks of toy2 are not ours"


def test_locks_of_which_no_driver_is_known_are_left_alone(folder: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"rm \.snakemake/locks/0.input.lock \.snakemake/locks/0.output.lock`"):
        driver.claim_campaign("toy")
    assert len(list(driver.LOCKS.iterdir())) == 3 and not Path("results/toy/state/driver.json").exists()
    # Another campaign that reads files of this one holds no lock of it.
    (driver.LOCKS / "0.input.lock").write_text("results/toy/iter_000/dataset.h5\nresults/b/1\nresults/b/2\n")
    assert [path.name for path in driver.campaign_locks("toy")] == ["0.output.lock"]


CLAIM = """
import sys, time
from dubito.core.errors import EnvironmentFault
from dubito.workflow import driver
{change}
print("ready", flush=True)
sys.stdin.readline()
try:
    driver.claim_campaign("toy")
    print("driver", flush=True)
except EnvironmentFault as fault:
    print("refused", fault, flush=True)
sys.stdin.readline()
"""
NO_LOCKS = "driver.fcntl.flock = lambda *_: (_ for _ in ()).throw(OSError(95, 'not supported'))"


@pytest.mark.parametrize("change", ["", NO_LOCKS], ids=["locks", "no-locks"])
def test_of_those_that_start_at_the_same_moment_one_drives(folder: Path, change: str) -> None:
    code = [sys.executable, "-c", CLAIM.format(change=change)]
    pipe = subprocess.PIPE
    starts = [subprocess.Popen(code, stdin=pipe, stdout=pipe, text=True, bufsize=1) for _ in range(3)]
    try:
        for number in range(4):
            if number:  # the driver of the round before was killed
                starts.append(subprocess.Popen(code, stdin=pipe, stdout=pipe, text=True, bufsize=1))
            else:
                write_driver(pid=1, process_start="started in another age")
            for one in starts:
                assert one.stdout and one.stdout.readline() == "ready\n"
            for one in starts:
                assert one.stdin
                one.stdin.write("\n")
            said = [one.stdout.readline() for one in starts if one.stdout]
            drives = [word.startswith("driver") for word in said]
            assert sum(drives) == 1, said
            winner = starts[drives.index(True)]
            assert json.loads(Path("results/toy/state/driver.json").read_text())["pid"] == winner.pid
            # Those that were refused end, and take nothing of the winner's with them.
            for one in starts:
                if one is not winner:
                    one.communicate("\n", timeout=10)
            assert json.loads(Path("results/toy/state/driver.json").read_text())["pid"] == winner.pid
            winner.kill()
            winner.wait()
            starts = [subprocess.Popen(code, stdin=pipe, stdout=pipe, text=True, bufsize=1)]
    finally:
        for one in starts:
            one.kill()
            one.wait()


def test_a_driver_that_a_script_started_in_the_background_can_be_interrupted(folder: Path) -> None:
    claim = "import time; from dubito.workflow import driver; driver.claim_campaign('b')"
    code = f"{claim}; print(1, flush=True); time.sleep(60)"
    # As `snakemake &` in a script of /bin/sh: such a shell tells its background jobs to ignore SIGINT.
    shell = f"trap '' INT; exec {sys.executable} -c \"{code}\""
    one = subprocess.Popen(["/bin/sh", "-c", shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert one.stdout and one.stdout.readline() == "1\n"
        one.send_signal(signal.SIGINT)
        _, error = one.communicate(timeout=10)
        assert "KeyboardInterrupt" in error
    finally:
        one.kill()
        one.wait()


def test_damaged_driver_file_stops_nothing(folder: Path) -> None:
    write_driver()
    Path("results/toy/state/driver.json").write_text("{")
    driver.claim_campaign("toy")


def test_live_slurm_jobs_of_this_campaign_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = folder / "bin" / "squeue"
    tool.parent.mkdir()
    lines = [
        f"11|dubito-toy_3f2a|{folder.resolve()}",
        f"12|interactive|{folder.resolve()}",
        "13|dubito-toy_3f2a|/elsewhere",
        f"14|dubito-toy_77b0|{folder.resolve()}",
        f"15|dubito-toy_2_77b0|{folder.resolve()}",  # another campaign, toy_2
        f"16|dubito-toy|{folder.resolve()}",
    ]
    tool.write_text("#!/bin/sh\ncat <<'EOF'\n" + "\n".join(lines) + "\nEOF\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    with pytest.raises(EnvironmentFault, match=r"2 Slurm jobs.*scancel 11 14`"):
        driver.refuse_live_jobs("toy")
    driver.refuse_live_jobs("other")
    tool.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    with pytest.raises(EnvironmentFault, match=r"Unable to contact.*squeue --me"):
        driver.refuse_live_jobs("toy")
    monkeypatch.setenv("PATH", str(folder))
    driver.refuse_live_jobs("toy")


@pytest.mark.parametrize(
    ("arguments", "only_looks"),
    [
        (["--cores", "2"], False),
        (["--lint"], True),
        (["--report=x.html"], True),
        (["--unlock"], True),
        (["--profile", "slurm"], False),
        (["--list-rules"], True),
    ],
)
def test_calls_that_only_look(arguments: list[str], only_looks: bool) -> None:
    assert driver.is_read_only(arguments) is only_looks


# --- the configuration ----------------------------------------------------------------------------------


def test_jobs_read_the_frozen_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(SNAPSHOT_VARIABLE, raising=False)
    raw: dict[str, Any] = {"campaign": {"name": "toy", "seed": 5}}
    resolved = load_campaign(raw)
    assert raw == resolved.model_dump(mode="json")
    monkeypatch.setenv(SNAPSHOT_VARIABLE, "")
    freeze_config(resolved)
    edited: dict[str, Any] = {"campaign": {"name": "toy", "seed": 6}}
    assert load_campaign(dict(edited), is_driver=False) == resolved
    assert load_campaign(dict(edited), is_driver=True).campaign.seed == 6


def test_labels_spent_counts_the_batches_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for k, count in enumerate((10, 16, 18)):
        path = Path(f"results/toy/iter_{k:03d}/selection.json")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"n_selected": count}))
    assert [labels_spent("toy", k) for k in range(4)] == [0, 10, 26, 44]


# --- one stage as a job -----------------------------------------------------------------------------------


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A made-up stage ``toy_stage`` whose behaviour a test sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dubito.workflow.stage._leave", lambda: None)
    behaviour: dict[str, Any] = {"error": None}
    module = types.ModuleType("dubito.stages.toy_stage")

    def run(*, output: Path, config: Config, threads: int) -> str:
        if behaviour["error"] is not None:
            raise behaviour["error"]
        return f"wrote {output} with {threads} threads"

    module.run = run  # type: ignore[attr-defined]
    run.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return behaviour


def toy_job() -> types.SimpleNamespace:
    return job(
        rule="toy_stage",
        output=Named(output="out.h5"),
        params=Named(stage=1, config={}),
        wildcards=Named(campaign="toy", iteration="001", shard="002"),
    )


def test_a_stage_reports_what_it_did(stages: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run_stage("toy_stage", toy_job())
    shown = capsys.readouterr().err
    assert re.fullmatch(r"\[toy 1/4\] toy_stage 002 +\d+\.\d s  wrote out\.h5 with 2 threads\n", shown)
    started, finished = read(Path("results/toy/progress.jsonl"))
    assert (started["event"], finished["event"]) == ("started", "finished")
    assert (finished["stage"], finished["iteration"], finished["part"]) == ("toy_stage", 1, "002")
    assert finished["wall_s"] >= 0
    assert finished["cpu_s"] > 0
    assert finished["max_rss_mb"] > 5
    assert Path("results/toy/state/locks/toy_stage_001_002.lock").exists()
    assert "wrote out.h5" in Path("results/toy/logs/x.log").read_text()


def test_gpu_seconds_and_the_identity_of_the_process_are_recorded(stages: dict[str, Any]) -> None:
    with_gpus = toy_job()
    with_gpus.resources = Named(gpu=2)
    run_stage("toy_stage", with_gpus)
    run_stage("toy_stage", toy_job())
    started, finished, _, without = read(Path("results/toy/progress.jsonl"))
    assert is_alive(started)
    assert finished["gpu_s"] == pytest.approx(2 * finished["wall_s"])
    assert without["gpu_s"] == 0


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_worked_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("dubito.core.locks.fcntl.flock", refuse)
    done = False
    with exclusive(tmp_path / "a.lock", wait_s=1):
        done = True
    assert done
    assert caplog.text.count("has no locks") == 1


def test_other_faults_of_a_lock_are_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr("dubito.core.locks.fcntl.flock", refuse)
    with pytest.raises(OSError, match="I/O error"), exclusive(tmp_path / "a.lock", wait_s=1):
        pass


def test_the_users_fault_is_one_paragraph(stages: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    stages["error"] = DataError("a.xyz is empty. Fetch it again.")
    with pytest.raises(SystemExit) as left:
        run_stage("toy_stage", toy_job())
    assert left.value.code == 2
    shown = capsys.readouterr().err
    assert "a.xyz is empty. Fetch it again." in shown
    assert "results/toy/logs/x.log" in shown
    assert "Traceback" not in shown
    assert "a.xyz is empty" in Path("results/toy/logs/x.log").read_text()
    assert read(Path("results/toy/progress.jsonl"))[-1]["event"] == "failed"


def test_a_bug_shows_its_traceback(stages: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    stages["error"] = RuntimeError("boom")
    with pytest.raises(SystemExit) as left:
        run_stage("toy_stage", toy_job())
    assert left.value.code == 1
    assert "Traceback" in capsys.readouterr().err
    assert "RuntimeError: boom" in Path("results/toy/logs/x.log").read_text()


@pytest.mark.parametrize(
    ("error", "code", "events"),
    [
        (MemoryError(), 2, ("failed", "out_of_memory")),
        (MemoryFault("The kernel took it."), 2, ("failed", "out_of_memory")),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), 1, ("failed", "out_of_memory")),
        (DataError("a.xyz is empty."), 2, ("failed", "error")),
        (Interrupted("SIGUSR1"), 75, ("interrupted", "SIGUSR1 asked this job to stop.")),
    ],
)
def test_the_last_event_says_what_the_retry_must_know(
    stages: dict[str, Any], error: BaseException, code: int, events: tuple[str, str]
) -> None:
    stages["error"] = error
    with pytest.raises(SystemExit) as left:
        run_stage("toy_stage", toy_job())
    assert left.value.code == code
    last = read(Path("results/toy/progress.jsonl"))[-1]
    assert (last["event"], last["reason"][: len(events[1])]) == events
    job_event("resumed", epoch=1)  # no job, no event
    assert read(Path("results/toy/progress.jsonl"))[-1] == last


def test_pyscf_is_told_of_the_memory_where_more_is_punished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYSCF_MAX_MEMORY", raising=False)
    _limit_pyscf({"slurm_job": None, "mem_mb": 8500})
    assert "PYSCF_MAX_MEMORY" not in os.environ
    _limit_pyscf({"slurm_job": "11", "mem_mb": 8500})
    assert os.environ.pop("PYSCF_MAX_MEMORY") == "6400"
