"""The guard of the Slurm plugin, without Slurm: a plugin with its faults, and a clock of our own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dubito.core.errors import EnvironmentFault
from dubito.workflow import slurm_guard, slurm_site, slurm_watch, slurm_words
from dubito.workflow.profile_file import profile_name
from dubito.workflow.slurm_signal import listeners
from dubito.workflow.slurm_watch import SlurmWatch
from dubito.workflow.submissions import REFUSED, Submissions


@pytest.mark.parametrize(
    ("state", "is_requeued", "plain"),
    [
        ("CANCELLED by 1000", False, "CANCELLED"),
        ("COMPLETED", False, "COMPLETED"),
        ("PREEMPTED", False, "CANCELLED"),
        ("PREEMPTED", True, "PREEMPTED"),
        ("REVOKED", True, "FAILED"),
        ("RUNNING", False, "RUNNING"),
        ("", False, "UNKNOWN"),
    ],
)
def test_states_in_the_plugins_words(state: str, is_requeued: bool, plain: str) -> None:
    assert slurm_words.plain_state(state, is_requeued=is_requeued) == plain


@pytest.mark.parametrize(
    "reason",
    [
        "PartitionConfig",
        "(ReqNodeNotAvail, UnavailableNodes:c1)",
        "AssocGrpCPUMinutesLimit",
        "QOSMaxCpuPerJobLimit",
        # As `squeue -o %r` of Slurm 22.05 prints it.
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
    ],
)
def test_reasons_that_do_not_pass_have_a_remedy(reason: str) -> None:
    assert slurm_words.never_starts(reason)


@pytest.mark.parametrize("reason", ["Priority", "Resources", "None", "AssocMaxJobsLimit", "Dependency", ""])
def test_reasons_that_pass_are_not_named(reason: str) -> None:
    assert slurm_words.never_starts(reason) is None


def test_names_of_jobs_tell_campaigns_apart() -> None:
    assert slurm_words.is_job_of("a", "dubito-a_12-34")
    assert not slurm_words.is_job_of("a", "dubito-a_b_12-34")
    assert not slurm_words.is_job_of("a", "dubito-ab_12-34")
    long = ["x" * 47 + end for end in "yz"]
    prefixes = [slurm_words.jobname_prefix(name) for name in long]
    assert len(set(prefixes)) == 2 and all(len(prefix) <= 50 for prefix in prefixes)
    assert slurm_words.is_job_of(long[0], f"{prefixes[0]}_1") and not slurm_words.is_job_of(long[0], f"{prefixes[1]}_1")


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def job(number: int, outputs: list[str] | None = None) -> SimpleNamespace:
    return SimpleNamespace(external_jobid=str(number), aux={}, job=SimpleNamespace(output=outputs or []))


def test_looks_soon_at_young_jobs_and_rarely_at_old_ones() -> None:
    clock = Clock()
    watch = SlurmWatch("run", least_s=5, clock=clock)
    assert watch.next_interval() == 5
    watch.submitted(job(1))
    assert watch.next_interval() == 5
    clock.now += 400
    assert watch.next_interval() == pytest.approx(20)
    clock.now += 40000
    assert watch.next_interval() == 60
    watch.submitted(job(2))
    assert watch.next_interval() == 5
    assert SlurmWatch("run", least_s=5, longest_s=3, clock=clock).next_interval() == 5


def test_a_job_is_missing_only_after_several_answers_without_it() -> None:
    clock, one = Clock(), job(1)
    watch = SlurmWatch("run", least_s=1, clock=clock)
    watch.submitted(one)

    def cycle(states: dict[str, str] | None, seconds: float) -> list[Any]:
        clock.now += seconds
        watch.begin_cycle()
        watch.answer("squeue --name run", states)
        return watch.missing([one])

    assert not any(cycle({}, 6) for _ in range(2))
    assert not any(cycle(None, 600) for _ in range(9))  # no answer says nothing
    assert not cycle({"1": "RUNNING"}, 600)  # seen again: counted from nothing
    assert [bool(cycle({}, 6)) for _ in range(4)] == [False, False, False, True]


class FakeExecutor:
    """What the guard needs of the plugin's executor, with its faults: unanswered cycles and unlisted jobs."""

    def __init__(self, workflow: Any, logger: Any) -> None:
        self.workflow = workflow
        self.reported: list[tuple[str, str]] = []
        self.cancelled: list[Any] = []
        self.submitted: list[Any] = []
        self.__post_init__()

    def __post_init__(self) -> None:
        self.run_uuid = f"{self.workflow.executor_settings.jobname_prefix}_1"

    async def check_active_jobs(self, active_jobs: list[Any]) -> Any:
        plugin: Any = sys.modules[slurm_guard.PLUGIN]
        self.next_seconds_between_status_checks = 180
        states, _ = await plugin.query_job_status("squeue", None)
        for info in active_jobs if states is not None else []:
            state = states.get(info.external_jobid)
            if state == "COMPLETED":
                self.report_job_success(info)
            elif state == "CANCELLED":
                self.report_job_error(info)
            else:
                yield info

    def report_job_submission(self, info: Any) -> None: ...

    def report_job_success(self, info: Any) -> None:
        self.reported.append((info.external_jobid, "success"))

    def report_job_error(self, info: Any, **_: Any) -> None:
        self.reported.append((info.external_jobid, "error"))

    def run_job(self, job: Any) -> None:
        plugin: Any = sys.modules[slurm_guard.PLUGIN]
        refusal = plugin.refusals.pop(0) if plugin.refusals else ""
        self.submitted.append(job)
        if refusal:
            call = "sbatch call:\n  sbatch --job-name QOSMaxSubmitJobPerUserLimit"
            self._report_job_error_threadsafe(plugin.SubmittedJobInfo(job), f"SLURM sbatch failed. {refusal}\n{call}")

    def _report_job_error_threadsafe(self, info: Any, msg: str) -> None:
        self.reported.append((info.external_jobid, msg))

    def _report_job_submission_threadsafe(self, info: Any) -> None:
        self.report_job_submission(info)

    def format_job_exec(self, job: Any) -> str:
        return str(job)

    def cancel_jobs(self, jobs: list[Any]) -> None:
        self.cancelled += jobs

    def shutdown(self) -> None: ...


class FakePlugin(ModuleType):
    """The plugin's module; ``states`` is what Slurm answers."""

    def __init__(self) -> None:
        super().__init__(slurm_guard.PLUGIN)
        self.states: Any = {}
        self.Executor = type(
            "Executor", (), {k: v for k, v in vars(FakeExecutor).items() if k not in {"__dict__", "__weakref__"}}
        )
        self.get_min_job_age = lambda: 300
        self.get_job_wildcards = lambda job: "toy_000_1"
        self.refusals: list[str] = []
        self.SubmittedJobInfo = lambda job, external_jobid=None, aux=None: SimpleNamespace(
            job=job, external_jobid=external_jobid, aux=aux or {}
        )

        async def query_job_status(command: str, logger: Any) -> Any:
            if self.states == "crash":
                raise FileNotFoundError(command)
            return (None, None) if self.states is None else (self.states, 0.01)

        self.query_job_status = query_job_status


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> FakePlugin:
    fake = FakePlugin()
    monkeypatch.setitem(sys.modules, slurm_guard.PLUGIN, fake)
    monkeypatch.setattr(slurm_guard, "require_site", lambda workflow: None)
    monkeypatch.setattr(slurm_watch, "MISSED_SECONDS", {"squeue": 0.0})
    monkeypatch.setattr(slurm_watch, "ask", lambda command: (0, "", ""))
    return fake


def started(plugin: FakePlugin, *jobs: Any, submissions: Submissions | None = None) -> Any:
    settings = SimpleNamespace(jobname_prefix="", init_seconds_before_status_checks=2, no_requeue=True)

    async def incomplete(job: Any) -> list[str]:
        return []

    workflow = SimpleNamespace(executor_settings=settings, persistence=SimpleNamespace(incomplete=incomplete))
    assert slurm_guard.guard_slurm("toy", submissions)
    executor = plugin.Executor(workflow, None)
    for info in jobs:
        executor.report_job_submission(info)
    return executor


def cycle(executor: Any, *jobs: Any) -> list[str]:
    async def kept() -> list[str]:
        return [info.external_jobid async for info in executor.check_active_jobs(list(jobs))]

    return asyncio.run(kept())


def test_jobs_carry_the_campaigns_name_and_are_looked_at_soon(plugin: FakePlugin) -> None:
    one = job(1)
    executor = started(plugin, one)
    assert executor.run_uuid == "dubito-toy_1"
    plugin.states = {"1": "RUNNING"}
    assert cycle(executor, one) == ["1"]
    assert executor.next_seconds_between_status_checks == 2


@pytest.mark.parametrize("states", [None, "crash"])
def test_an_unanswered_cycle_forgets_no_job(plugin: FakePlugin, states: Any, caplog: pytest.LogCaptureFixture) -> None:
    one, two = job(1), job(2)
    executor = started(plugin, one, two)
    plugin.states = states
    assert cycle(executor, one, two) == ["1", "2"]
    assert cycle(executor, one, two) == ["1", "2"]
    plugin.states = {"1": "COMPLETED", "2": "CANCELLED by 0"}
    assert cycle(executor, one, two) == []
    assert executor.reported == [("1", "success"), ("2", "error")]
    if states is None:
        said = [record.getMessage() for record in caplog.records]
        assert sum("does not answer" in text for text in said) == sum("answers again" in text for text in said) == 1


def test_a_job_that_slurm_forgot_is_started_again_unless_its_files_are_there(
    plugin: FakePlugin, tmp_path: Path
) -> None:
    written, old = tmp_path / "written", tmp_path / "old"
    written.touch()
    old.touch()
    os.utime(old, (time.time() - 100, time.time() - 100))
    jobs = [job(1, [str(tmp_path / "missing")]), job(2, [str(written)]), job(3, [str(old)]), job(4, [])]
    executor = started(plugin, *jobs)
    plugin.states = {}
    assert cycle(executor, *jobs) == cycle(executor, *jobs) == ["1", "2", "3", "4"]
    assert cycle(executor, *jobs) == []
    assert executor.reported == [("1", "error"), ("2", "success"), ("3", "error"), ("4", "error")]


@pytest.mark.parametrize(
    ("squeue", "sacct", "fate"),
    [
        ((1, "", "slurm_load_jobs error: Invalid job id specified"), (1, "", "disabled"), "gone"),
        ((1, "", "Unable to contact slurm controller"), (0, "COMPLETED\n", ""), "alive"),
        ((0, "7|dubito-toy_1\n", ""), (0, "", ""), "alive"),
        ((0, "7|of somebody else\n", ""), (0, "", ""), "gone"),
        ((0, "", ""), (0, "COMPLETED\n", ""), "completed"),
        ((0, "", ""), (0, "CANCELLED by 0\n", ""), "CANCELLED"),
        ((0, "", ""), (0, "RUNNING\n", ""), "gone"),
    ],
)
def test_what_became_of_a_job(
    squeue: tuple[int, str, str], sacct: tuple[int, str, str], fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_watch, "ask", lambda command: squeue if command[0] == "squeue" else sacct)
    assert SlurmWatch("dubito-toy_1", least_s=1).fate("7") == fate


def test_all_jobs_are_cancelled_also_those_being_looked_after(plugin: FakePlugin) -> None:
    jobs = [job(1), job(2), job(3)]
    executor = started(plugin, *jobs)
    executor.report_job_success(jobs[0])
    executor.cancel_jobs([jobs[1]])  # Snakemake's list, emptied by a cycle that is not over
    assert executor.cancelled == jobs[1:]
    executor.run_job("late")
    assert executor.submitted == [], "submitted after all was cancelled"


def test_a_submission_waits_for_the_scheduler(plugin: FakePlugin, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(1, "", "no controller"), (1, "", "no controller"), (0, "cpu*", "")])
    monkeypatch.setattr(slurm_watch, "ask", lambda command: next(answers))
    monkeypatch.setattr(slurm_watch, "ASK_AGAIN_S", 0.001)
    executor = started(plugin)
    executor.run_job("one")
    assert executor.submitted == ["one"] and next(answers, None) is None


# As sbatch of Slurm 22.05 says it.
NO_ROOM = (
    "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
    "policy (job submit limit, user's size and/or time limits)"
)
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
TOO_LARGE = (
    "sbatch: error: QOSMaxMemoryPerJob\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
    "(job submit limit, user's size and/or time limits)"
)


def shard(attempt: int = 1) -> Any:
    rule, wildcards = SimpleNamespace(name="label_structures"), {"iteration": "000", "shard": "1"}
    return SimpleNamespace(name=rule.name, rule=rule, wildcards_dict=wildcards, attempt=attempt, is_group=lambda: False)


SHARD = ("label_structures", 0, "1")


def test_no_room_for_a_job_costs_no_attempt(
    plugin: FakePlugin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(slurm_watch, "TRY_AGAIN_S", 0.001)
    submissions = Submissions()
    executor = started(plugin, submissions=submissions)
    plugin.refusals = [NO_ROOM, NO_ROOM, "sbatch: error: Resource temporarily unavailable"]
    executor.run_job(shard())
    assert len(executor.submitted) == 4 and executor.reported == []
    assert caplog.text.count("Slurm takes no more jobs for now (AssocMaxSubmitJobLimit)") == 1
    assert submissions.of(SHARD, 1) is None
    # What does not pass is told, and says nothing about memory.
    plugin.refusals = [TOO_LARGE]
    executor.run_job(shard(attempt=2))
    assert len(executor.submitted) == 5 and "QOSMaxMemoryPerJob" in executor.reported[0][1]
    assert submissions.of(SHARD, 2) == REFUSED
    # The driver ends while a job waits.
    plugin.refusals = [NO_ROOM] * 9
    monkeypatch.setattr(SlurmWatch, "wait_for_room", lambda self: self.stopping.set())
    executor.run_job(shard())
    assert len(executor.submitted) == 6 and len(executor.reported) == 1


def test_a_job_that_was_taken_without_an_answer_is_not_submitted_twice(
    plugin: FakePlugin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(slurm_watch, "TRY_AGAIN_S", 0.001)
    answers = [(1, "", "no answer"), (0, "6|rule_label_structures_wildcards_toy_000_1\n7|rule_other\n", "")]
    monkeypatch.setattr(slurm_watch, "ask", lambda cmd: answers.pop(0) if cmd[0] == "squeue" else (0, "", ""))
    submissions = Submissions()
    executor = started(plugin, submissions=submissions)
    executor.slurm_logdir = tmp_path
    plugin.refusals = [TIMED_OUT]
    executor.run_job(shard())
    assert len(executor.submitted) == 1 and executor.reported == [] and not answers
    assert submissions.of(SHARD, 1) == "6"
    (info,) = getattr(executor, "_dubito_watch").jobs()  # noqa: B009
    assert info.external_jobid == "6" and info.aux["slurm_logfile"].name == "6.log"
    # An earlier attempt has the same comment, and is not taken for this one.
    answers[:] = [(0, "6|rule_label_structures_wildcards_toy_000_1\n", "")]
    plugin.refusals = [TIMED_OUT]
    executor.run_job(shard(attempt=2))
    assert len(executor.submitted) == 3


@pytest.mark.parametrize("path", ["a $HOME `id` b", r"back\slash \$x", 'quo"te', "plain"])
def test_the_shell_expands_nothing_in_a_folder_s_name(plugin: FakePlugin, path: str) -> None:
    executor = started(plugin)
    wrapped = executor.format_job_exec(f"cd '{path}'").replace('"', '\\"')  # as the plugin does
    said = subprocess.run(["/bin/sh", "-c", f'printf %s "{wrapped}"'], capture_output=True, text=True, check=True)
    assert said.stdout == f"cd '{path}'"
    executor.workflow.executor_settings.pass_command_as_script = True
    assert executor.format_job_exec(path) == path


def test_another_plugin_costs_guards_and_a_warning(plugin: FakePlugin, caplog: pytest.LogCaptureFixture) -> None:
    del plugin.query_job_status, plugin.Executor.cancel_jobs
    with caplog.at_level(logging.WARNING):
        executor = started(plugin)
    assert "has no `cancel_jobs`" in caplog.text and "has no `query_job_status`" in caplog.text
    executor.run_job("one")
    assert executor.submitted == ["one"]


def test_without_the_plugin_there_is_nothing_to_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, slurm_guard.PLUGIN, raising=False)
    assert not slurm_guard.guard_slurm("toy")


def settings(default: dict[str, Any], **rules: dict[str, Any]) -> Any:
    resources = SimpleNamespace(default_resources=default, overwrite_resources=rules)
    known = [SimpleNamespace(name=name, resources={}) for name in ("train_ensemble", "decide", "all")]
    return SimpleNamespace(
        resource_settings=resources,
        is_main_process=True,
        rules=known,
        is_local=lambda rule: rule.name == "decide",
        get_rule=lambda name: next(rule for rule in known if rule.name == name),
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a profile, and a command line that names it; return its file."""
    file = tmp_path / "mysite" / "config.yaml"
    file.parent.mkdir()
    file.write_text("__use_yte__: true\n__variables__: {account: '', partition: '', gpu_partition: ''}\n")
    monkeypatch.setattr(sys, "argv", ["snakemake", "--profile", str(file.parent)])
    return file


def cluster_of(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put the commands of a Slurm on PATH that says this of itself."""
    folder.mkdir()
    for name in ("sbatch", "squeue", "sacctmgr", "scontrol"):
        program = folder / name
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text if name == 'scontrol' else ''}\nEND\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("default", "words"),
    [
        ({"slurm_account": "'your_account'"}, "`slurm_account` of the default resources still says 'your_account'"),
        ({"slurm_partition": "['a', 'b']"}, "one name without spaces"),
        ({"constraint": "intel amd"}, r"features without spaces .* or \[intel|amd\]"),
        ({"runtime": "'long'"}, r"`runtime` .* is 'long', and a whole number was expected \(minutes\)"),
        ({"mem_mb": "plenty"}, "`mem_mb` of the default resources is 'plenty'"),
    ],
)
def test_what_is_not_filled_in_is_one_paragraph(default: dict[str, Any], words: str, site: Path) -> None:
    with pytest.raises(EnvironmentFault, match=words) as fault:
        slurm_site.require_values(settings(default))
    is_variable = next(iter(default)) in ("slurm_account", "slurm_partition")
    assert f"{'at the top of' if is_variable else 'in'} {site}" in str(fault.value) and "\n" not in str(fault.value)
    with pytest.raises(EnvironmentFault, match="of rule train_ensemble"):
        slurm_site.require_values(settings({}, train_ensemble=default))


def test_what_snakemake_takes_is_taken() -> None:
    slurm_site.require_values(
        settings({"runtime": "2h", "mem_mb": "4000 * attempt", "gpu": 1, "slurm_partition": "'cpu,long'", "qos": "a-b"})
    )
    slurm_site.require_values(settings({"constraint": "[intel|amd]", "slurm_account": "my-lab"}))
    slurm_site.require_values(settings({}, train_ensemble={"constraint": "intel&gpu*2"}))
    slurm_site.require_values(settings({}))
    slurm_site.require_values(SimpleNamespace())


def test_a_name_of_the_cluster_is_no_placeholder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = settings({"slurm_partition": "xxx"})
    with pytest.raises(EnvironmentFault, match="still says 'xxx'"):
        slurm_site.require_values(asked)
    cluster_of(tmp_path / "bin", monkeypatch, "PartitionName=xxx Default=YES MaxTime=UNLIMITED")
    slurm_site.require_values(asked)


def test_a_rule_that_does_not_exist(site: Path) -> None:
    slurm_site.require_rules(settings({}, train_ensemble={"gpu": 1}))
    with pytest.raises(
        EnvironmentFault, match=r"`gpu_rules`\) names the rule 'train_ensembel'.*Did you mean 'train_"
    ) as e:
        slurm_site.require_rules(settings({}, train_ensembel={"gpu": 1}))
    assert str(site) in str(e.value)
    threads = settings({})
    threads.resource_settings.overwrite_threads = {"decied": 2}
    with pytest.raises(EnvironmentFault, match=r"`set-threads` names the rule 'decied'.*Did you mean 'decide'"):
        slurm_site.require_rules(threads)


GPU_SITE = """PartitionName=cpu Default=YES MaxTime=UNLIMITED
PartitionName=gpu Default=NO Hidden=YES MaxTime=UNLIMITED
NodeName=c1 RealMemory=16000 Gres=(null) Partitions=cpu
NodeName=g1 RealMemory=16000 Gres=gpu:a100:2 Partitions=gpu"""


def test_a_gpu_where_there_is_none(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_of(tmp_path / "bin", monkeypatch, GPU_SITE)
    with pytest.raises(EnvironmentFault, match="train_ensemble asks for 1 GPU, and no node of partition cpu") as fault:
        slurm_site.require_site(settings({}, train_ensemble={"gpu": 1}))
    assert f"Set `gpu_partition` at the top of {site} to one that has: gpu" in str(fault.value)
    assert "\n" not in str(fault.value)
    for fine in ({"gpu": 2, "slurm_partition": "gpu"}, {"gpu": 1, "slurm_partition": "cpu,gpu"}, {"gpu": 0}):
        slurm_site.require_site(settings({}, train_ensemble=fine))
    slurm_site.require_site(settings({}, decide={"gpu": 1}))  # runs beside the driver
    with pytest.raises(EnvironmentFault, match="3 GPU"):
        slurm_site.require_site(settings({}, train_ensemble={"gpu": 3, "slurm_partition": "gpu"}))
    with pytest.raises(EnvironmentFault, match=r"partition 'cpuu'.*has: cpu, gpu"):
        slurm_site.require_site(settings({"slurm_partition": "cpuu"}))


@pytest.mark.parametrize(
    ("arguments", "environment", "name"),
    [
        (["--profile", "a", "-n"], {}, "a"),
        (["--profile=a/b"], {"SNAKEMAKE_PROFILE": "c"}, "a/b"),
        (["--cores", "2"], {"SNAKEMAKE_PROFILE": "c"}, "c"),
        (["--cores", "2"], {}, None),
    ],
)
def test_the_profile_given_is_known(arguments: list[str], environment: dict[str, str], name: str | None) -> None:
    assert profile_name(arguments, environment) == name


def test_missing_sbatch_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"no `sbatch`.*module load slurm.*snakemake --cores 2"):
        slurm_site.require_site(settings({}))


def test_signals_go_to_those_that_listen() -> None:
    listen = "import signal, sys; signal.signal(signal.SIGTERM, print); print('up', flush=True); signal.pause()"
    shell = subprocess.Popen(
        ["/bin/sh", "-c", f'{sys.executable} -c "{listen}"; true'], stdout=subprocess.PIPE, text=True
    )
    try:
        assert shell.stdout is not None and shell.stdout.readline() == "up\n"
        (found,) = listeners(shell.pid, signal.SIGTERM)
        assert found != shell.pid and listeners(shell.pid, signal.SIGUSR1) == []
        os.kill(found, signal.SIGKILL)
    finally:
        shell.kill()
        shell.wait()
