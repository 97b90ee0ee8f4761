"""What `dubito check --profile` says of a cluster: Slurm's own words (22.05.8, recorded), with faults planted."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dubito
from dubito.cli.cluster import check_folder, trial
from dubito.cli.cluster.check_accounts import check_accounts, check_qos, check_submitted, check_verdicts
from dubito.cli.cluster.check_commands import check_commands, check_controller, check_plugin, check_polling
from dubito.cli.cluster.check_gpus import check_gpus
from dubito.cli.cluster.check_others import check_other_scheduler, submit_program
from dubito.cli.cluster.check_profile import check_profile
from dubito.cli.cluster.check_requests import check_partitions, check_sizes
from dubito.cli.cluster.check_threads import check_threads, environment, judge_threads
from dubito.cli.cluster.findings import Finding
from dubito.cli.cluster.plan import Plan, Request, plan_of, read_plan, said_by_snakemake
from dubito.core.errors import ConfigError, EnvironmentFault
from dubito.core.slurm import accounts as slurm_accounts
from dubito.core.slurm.accounts import Association, read_associations
from dubito.core.slurm.asking import COMMANDS, minutes, run
from dubito.core.slurm.cluster import Cluster, gpus, read_cluster
from dubito.core.slurm.features import is_constraint, satisfies
from dubito.core.slurm.limits import Site, read_site

ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "config" / "examples" / "teacher.yaml"

PARTITION = (
    "PartitionName={name} AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default={default} QoS=N/A "
    "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED MaxTime=01:00:00 "
    "MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=x PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO "
    "OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=16 TotalNodes=2 SelectTypeParameters=NONE "
    "JobDefaults=(null) DefMemPerCPU=500 MaxMemPerNode=UNLIMITED TRES=cpu=16,mem=32000M,node=2,billing=16"
)
NODE = (
    "NodeName={name} Arch=x86_64 CoresPerSocket=1  CPUAlloc=0 CPUEfctv=8 CPUTot=8 CPULoad=2.06 "
    "AvailableFeatures={features} ActiveFeatures={features} Gres={gres} NodeAddr={address} NodeHostName={name} "
    "Port=30774 Version=22.05.8 OS=Linux 6.18.44 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=16000 AllocMem=0 FreeMem=22455 "
    "Sockets=8 Boards=1 State=IDLE ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A Partitions={partition}  "
    "BootTime=2026-11-21T14:20:57 CfgTRES=cpu=8,mem=16000M,billing=8 AllocTRES= CapWatts=n/a CurrentWatts=0"
)
PARTITIONS = [PARTITION.format(name="cpu", default="YES"), PARTITION.format(name="gpu", default="NO")]
NODES = [
    NODE.format(name="c1", features="skylake,ib", gres="(null)", address="10.0.0.1", partition="cpu"),
    NODE.format(name="c2", features="(null)", gres="(null)", address="10.0.0.2", partition="cpu"),
    NODE.format(name="g1", features="(null)", gres="gpu:a100:2(S:0-1)", address="10.0.0.3", partition="gpu"),
]
CONFIG = (
    "AccountingStorageType   = {accounting}\nAccountingStorageEnforce = associations,limits\n"
    "MinJobAge               = 300 sec"
)
ASSOCIATIONS = "alloc1|root||normal|||||||||\nold|root||normal||0|||||||\nspent|root||normal|||||||||"
WHOLE = {"spent": "spent|||normal|||||cpu=0||||\nspent|root||normal|||||||||", "alloc1": "", "old": ""}


class FakeSlurm:
    """Scripts on PATH that say what a Slurm said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        folder.mkdir()
        self.show = {"partition": PARTITIONS, "node": NODES, "config": CONFIG.format(accounting="none").splitlines()}
        for name in COMMANDS:
            self.script(name, "exit 0")
        self.write()

    def script(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.calls}\n{text}\n')
        path.chmod(0o755)

    def write(self, ping: str = "Slurmctld(primary) at vm is UP") -> None:
        for what, lines in self.show.items():
            (self.folder / f"{what}.txt").write_text("\n".join(lines) + "\n")
        self.script(
            "scontrol",
            f'case "$*" in *ping*) echo "{ping}";; *version*) echo slurm 22.05.8;; *" partition") cat {self.folder}'
            f'/partition.txt;; *" node") cat {self.folder}/node.txt;; *config*) cat {self.folder}/config.txt;; esac',
        )

    def called(self, name: str) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line for line in lines if line.startswith(f"{name} ")]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    made = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return made


def request(rule: str = "label_structures", attempt: int = 1, **more: Any) -> Request:
    values: dict[str, Any] = {"cpus": 1, "mem_mb": 2000, "runtime_min": 30, "partition": "cpu", **more}
    return Request(rule=rule, attempt=attempt, **values)


def plan(*requests: Request, **more: Any) -> Plan:
    settings = {"jobs": 50, "cluster": {"init_seconds_before_status_checks": 5, "no_requeue": True}}
    values: dict[str, Any] = {"executor": "slurm", "file": "slurm/config.yaml", "settings": settings, **more}
    return Plan(requests=requests or (request(),), **values)


def faults(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found if finding.level == "fault"]


def warnings(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found if finding.level == "warning"]


def only(texts: list[str]) -> str:
    assert len(texts) == 1, texts
    return texts[0]


# --- what Slurm says --------------------------------------------------------------------------------


def test_a_cluster_is_read(fake: FakeSlurm) -> None:
    cluster = read_cluster()
    assert list(cluster.partitions) == ["cpu", "gpu"] and cluster.default_partition == "cpu"
    assert cluster.partitions["cpu"].max_minutes == 60 and cluster.partitions["cpu"].accounts is None
    assert [node.name for node in cluster.nodes_of("cpu")] == ["c1", "c2"]
    node = cluster.nodes["g1"]
    assert (node.cpus, node.mem_mb, node.gpus, node.address) == (8, 16000, {"a100": 2}, "10.0.0.3")
    assert cluster.nodes["c1"].features == {"skylake", "ib"} and not cluster.nodes["c2"].features
    assert cluster.settings["MinJobAge"] == "300 sec" and not cluster.has_accounting
    shown = [line for line in fake.called("scontrol") if line.endswith(("partition", "node"))]
    assert len(shown) == 2 and all("--all" in line for line in shown), "hidden partitions take jobs too"


@pytest.mark.parametrize(
    ("text", "value"),
    [("01:00:00", 60), ("2-00:00:00", 2880), ("1-12", 2160), ("30:00", 30), ("UNLIMITED", None), ("00:00:30", 0.5)],
)
def test_times(text: str, value: float | None) -> None:
    assert minutes(text) == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(null)", {}),
        ("gpu:4", {"": 4}),
        ("gpu", {"": 1}),
        ("gpu:a100:4(S:0-1),gpu:v100:2(IDX:0,1),lustre:1", {"a100": 4, "v100": 2}),
    ],
)
def test_gpus_of_a_node(text: str, found: dict[str, int]) -> None:
    assert gpus(text) == found


def test_a_silent_command_is_no_crash(tmp_path: Path, fake: FakeSlurm) -> None:
    fake.script("sinfo", "sleep 5")
    assert run(["sinfo"], timeout_s=0.1).rc is None
    assert run(["no-such-command"]).said == "no-such-command was not found"


# --- commands and controller ------------------------------------------------------------------------


def test_missing_sbatch(fake: FakeSlurm) -> None:
    assert not faults(check_commands())
    (fake.folder / "sbatch").unlink()
    if subprocess.run(["/bin/sh", "-c", "command -v sbatch"], capture_output=True, check=False).returncode == 0:
        os.environ["PATH"] = str(fake.folder)  # this machine has a Slurm; the monkeypatch of the fixture undoes it
    text = only(faults(check_commands()))
    assert text.startswith("sbatch can't be found") and "module load slurm" in text and "--cores" in text


def test_a_controller_that_is_down(fake: FakeSlurm) -> None:
    assert not faults(check_controller())
    fake.write(ping="Slurmctld(primary) at vm is DOWN")
    assert "slurmctld does not answer (Slurmctld(primary) at vm is DOWN)" in only(faults(check_controller()))


def test_a_configuration_that_jobs_will_not_find(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.script("scontrol", '[ -n "$SLURM_CONF" ] && echo "Slurmctld(primary) at vm is UP"')
    monkeypatch.setenv("SLURM_CONF", "/home/me/slurm.conf")
    assert "/etc/slurm/slurm.conf on all nodes" in only(faults(check_controller()))


def test_plugin_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.4.0")
    assert "pip install snakemake-executor-plugin-slurm==2.8.0" in warnings(check_plugin())[0]


def test_polling_against_the_memory_of_the_controller() -> None:
    cluster = Cluster({}, {}, {"MinJobAge": "300 sec"})
    assert not warnings(check_polling(plan(), cluster))
    short = Cluster({}, {}, {"MinJobAge": "9 sec"})
    assert "slurm-init-seconds-before-status-checks to 3" in only(warnings(check_polling(plan(), short)))
    sacct = plan(settings={"cluster": {"status_command": "sacct"}})
    texts = warnings(check_polling(sacct, cluster))
    assert any("waits for ever for a cancelled job" in text for text in texts)
    assert any("slurm-no-requeue" in text for text in texts)


# --- the profile ------------------------------------------------------------------------------------


def test_variables_that_were_not_filled_in() -> None:
    found = check_profile(plan(variables={"partition": "<your partition>", "account": "", "gpu_rules": ["a"]}))
    text = only(faults(found))
    assert "'partition'" in text and "sinfo -s" in text
    text = only(faults(check_profile(plan(request(account="your_account"), request("decide", account="your_account")))))
    assert "slurm_account of label_structures" in text and "sacctmgr show assoc" in text
    for name in ("my2ndproject", "my-lab", "set-theory", "put_1"):
        assert not faults(check_profile(plan(request(account=name), variables={"partition": "", "account": name})))


def test_a_name_that_the_cluster_lists_is_no_placeholder(fake: FakeSlurm) -> None:
    asked = plan(request(partition="xxx"), variables={"partition": "xxx"})
    assert "'partition'" in only(faults(check_profile(asked)))
    fake.show["partition"] = [PARTITION.format(name="xxx", default="YES")]
    fake.write()
    assert not faults(check_profile(asked))


def test_a_value_that_a_start_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site").mkdir()
    text = "executor: slurm\njobs: 2\ndefault-resources:\n  runtime: soon\n  mem_mb: 2000\n"
    (tmp_path / "site" / "config.yaml").write_text(text)
    found = faults(check_profile(read_plan(TEACHER, "site", ROOT / "Snakefile")))
    assert "'soon'" in only(found) and "(minutes)" in found[0]


def test_settings_for_a_rule_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site").mkdir()
    text = "executor: slurm\njobs: 2\nretries: 2\ndefault-resources: {runtime: 30, mem_mb: 2000}\nset-resources:\n"
    text += "  train_ensemble: {mem_mb: 8000, runtime: 1h}\n  label_structures: {mem: 3GB, runtime: 20 * attempt}\n"
    (tmp_path / "site" / "config.yaml").write_text(text + "  train_ensembel: {gpu: 1}\n")
    found = read_plan(TEACHER, "site", ROOT / "Snakefile")
    text = only(faults(check_profile(found)))
    assert "'train_ensembel'" in text and "Did you mean 'train_ensemble'?" in text and "in site/config.yaml" in text
    # Numbers are first guesses and are doubled like dubito's own; an expression is taken as it stands.
    asked = {rule: [(r.mem_mb, r.runtime_min) for r in found.requests if r.rule == rule] for rule in
             ("train_ensemble", "label_structures")}  # fmt: skip
    assert asked["train_ensemble"] == [(8000, 60), (16000, 120), (32000, 240)]
    assert asked["label_structures"] == [(3000, 20), (6000, 40), (12000, 60)]


def test_memory_that_snakemake_alone_takes() -> None:
    assert "less than 500 MB" in only(faults(check_profile(plan(request(mem_mb=400)))))


def test_what_snakemake_says_is_found_in_its_noise() -> None:
    assert said_by_snakemake("usage: x\n[--y]\nrequests.py: error: Couldn't parse config file: z\n").startswith(
        "Couldn't"
    )
    assert said_by_snakemake('ImportError in file "a.smk", line 2:\ncannot import b\n File c').endswith(
        "cannot import b"
    )
    assert said_by_snakemake("Using profile x\ndubito: campaign.yaml has 2 faults.") == "campaign.yaml has 2 faults"


# --- partitions and sizes ---------------------------------------------------------------------------


def test_a_wrong_partition_is_told_once_with_the_nearest(fake: FakeSlurm) -> None:
    asked = plan(request(partition="cpuu"), request("train_ensemble", partition="cpuu"), request("decide"))
    found = check_partitions(asked, read_cluster())
    text = only(faults(found))
    assert "'cpuu' (label_structures, train_ensemble)" in text and "Did you mean 'cpu'?" in text and "cpu, gpu" in text
    stopped = frozenset().union(*(f.rules for f in found if f.level == "fault"))
    assert stopped == {"label_structures", "train_ensemble"}
    check_verdicts(asked, stopped)
    assert len(fake.called("sbatch")) == 1  # decide's; the others are known to be wrong


def test_the_variable_at_the_top_is_named_where_there_is_one(fake: FakeSlurm) -> None:
    asked = plan(request(partition="cpuu"), variables={"partition": "cpuu", "gpu_partition": ""})
    text = only(faults(check_partitions(asked, read_cluster())))
    assert "Set `partition` or `gpu_partition` at the top of slurm/config.yaml" in text


def test_no_partition_is_the_default_one(fake: FakeSlurm) -> None:
    found = check_partitions(plan(request(partition=None)), read_cluster())
    assert "cpu (the cluster's default)" in only([f.text for f in found])
    fake.show["partition"] = [PARTITION.format(name="cpu", default="NO")]
    fake.write()
    assert "no default" in only(faults(check_partitions(plan(request(partition=None)), read_cluster())))


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (("State=UP", "State=DOWN"), "is DOWN, not UP"),
        (("State=IDLE", "State=DOWN*"), "all 2 nodes of partition cpu are out of service (DOWN*"),
        (("State=IDLE", "State=IDLE+DRAIN"), "out of service"),
    ],
)
def test_a_partition_that_takes_no_jobs(fake: FakeSlurm, change: tuple[str, str], fragment: str) -> None:
    fake.show = {key: [line.replace(*change) for line in lines] for key, lines in fake.show.items()}
    fake.write()
    assert fragment in only(faults(check_partitions(plan(), read_cluster())))


@pytest.mark.parametrize(
    ("asked", "fragments"),
    [
        ({"mem_mb": 20000}, ("20000 MB", "gives 16000 MB", "Lower mem_mb")),
        ({"cpus": 9}, ("9 CPUs", "gives 8 CPUs", "set-threads")),
        ({"runtime_min": 90}, ("90 min", "after 60 min", "MaxTime")),
        ({"gpus": 1}, ("1 GPU", "no node of partition cpu has a GPU", "Set slurm_partition to gpu")),
        ({"gpus": 3, "partition": "gpu"}, ("3 GPUs", "at most 2 GPUs, models: a100")),
        ({"gpus": 1, "gpu_model": "h100", "partition": "gpu"}, ("1 h100 GPU", "models: a100")),
        ({"constraint": "skylak"}, ("Did you mean 'skylake'?", "ib, skylake")),
        ({"constraint": "skylake&gpfs"}, ("no node of partition cpu has that",)),
    ],
)
def test_a_request_that_fits_no_node(fake: FakeSlurm, asked: dict[str, Any], fragments: tuple[str, ...]) -> None:
    found = check_sizes(plan(request(**asked)), read_site())
    text = only(faults(found))
    assert all(fragment in text for fragment in fragments), text


def test_requests_that_fit(fake: FakeSlurm) -> None:
    largest = request(mem_mb=16000, cpus=8, runtime_min=60, constraint="skylake|sapphire")
    either = request("train_ensemble", partition="cpu,gpu", gpus=2, gpu_model="a100")
    found = check_sizes(plan(largest, either), read_site())
    assert [f.level for f in found] == ["ok"] and "2 rules" in found[0].text


def test_retries_that_would_wait_for_ever_only_warn(fake: FakeSlurm) -> None:
    attempts = [request(rule, k, mem_mb=6000 * k) for rule in ("label_structures", "decide") for k in (1, 2, 3)]
    found = check_sizes(plan(*attempts), read_site())
    assert not faults(found)
    text = only(warnings(found))
    assert "label_structures (attempt 3: 18000 MB), decide (attempt 3: 18000 MB)" in text
    assert "sbatch refuses such a retry" in text and "for ever" not in text
    fake.show["partition"] = [line.replace("PerNode=UNLIMITED TRES", "PerNode=12000 TRES") for line in PARTITIONS]
    fake.write()
    attempts = [request(attempt=k, mem_mb=7000 * k) for k in (1, 2)]
    assert "attempt 2: 14000 MB" in (text := only(warnings(check_sizes(plan(*attempts), read_site()))))
    assert "gives 12000 MB. Such a retry would wait for ever" in text


@pytest.mark.parametrize(
    ("constraint", "answer"),
    [("a", True), ("a&b", True), ("a&c", False), ("c|b", True), ("c", False), ("[a*2&c*1]", True), ("[a|c]", True),
     ("[c|d]", False), ("a&c*2", False), ("a&b*2", True), ("(c|a)&b", True), ("(c|a)&d", False), ("((", True)],
)  # fmt: skip
def test_constraints(constraint: str, answer: bool) -> None:
    assert satisfies(constraint, frozenset("ab")) is answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[intel|amd]", True),
        ("intel&gpu*2", True),
        ("gpu:a100", True),
        ("a b", False),
        ("['a', 'b']", False),
        ("[a", False),
    ],
)
def test_what_can_be_a_constraint(text: str, answer: bool) -> None:
    assert is_constraint(text) is answer


# --- GPUs -------------------------------------------------------------------------------------------


def test_a_rule_that_needs_a_gpu_and_gets_none(fake: FakeSlurm) -> None:
    devices = {"train_ensemble": "cuda", "label_structures": "cpu", "prepare_reference": "cuda"}
    asked = plan(request("train_ensemble"), request(), request("prepare_reference", gpus=1), devices=devices)
    found = check_gpus(asked, read_cluster())
    text = only(faults(found))
    assert text.startswith("train_ensemble: ") and "slurm_partition: gpu, gpu: 1" in text and "resources.device" in text
    assert found[0].rules == {"train_ensemble"}


def test_a_gpu_that_would_stand_idle() -> None:
    asked = plan(request("train_ensemble", gpus=1), request(gpus=1), devices={"train_ensemble": "auto"})
    found = check_gpus(asked, None)
    assert only(warnings(found)).startswith("label_structures: a GPU is asked for that would stand idle")
    assert "asked for by train_ensemble" in found[-1].text


# --- accounts ---------------------------------------------------------------------------------------


@pytest.fixture
def accounting(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(slurm_accounts.getpass, "getuser", lambda: "root")
    fake.show["config"] = CONFIG.format(accounting="accounting_storage/slurmdbd").splitlines()
    fake.write()
    (fake.folder / "mine.txt").write_text(ASSOCIATIONS + "\n")
    cases = "".join(f'*account={name}*) printf "%s" "{text}";; ' for name, text in WHOLE.items())
    (fake.folder / "qos.txt").write_text("normal|||||||\n")
    cases += f'*"show qos"*) cat {fake.folder}/qos.txt;; *"show user"*) echo alloc1;;'
    fake.script("sacctmgr", f'case "$*" in *user=root*) cat {fake.folder}/mine.txt;; {cases} esac')
    return read_cluster()


@pytest.mark.parametrize(
    ("account", "fragments"),
    [
        ("aloc1", ("none of root's", "Did you mean 'alloc1'?", "expired")),
        ("old", ("closed for root (MaxSubmitJobs=0)", "renewed")),
        ("spent", ("closed for root (GrpTRESMins=cpu=0)",)),
    ],
)
def test_an_account_that_is_wrong_or_expired(accounting: Cluster, account: str, fragments: tuple[str, ...]) -> None:
    asked = plan(request(account=account))
    text = only(faults(check_accounts(asked, accounting, read_associations([account]))))
    assert all(fragment in text for fragment in fragments), text


def test_an_account_that_is_open(accounting: Cluster) -> None:
    known = read_associations(["alloc1"])
    assert known is not None and [entry.closed for entry in known] == [None, "MaxSubmitJobs=0", None]
    assert [f.level for f in check_accounts(plan(request(account="ALLOC1")), accounting, known)] == ["ok"]
    assert "'gold'" in only(faults(check_qos(plan(request(qos="gold")), accounting, known)))
    assert not check_qos(plan(request(qos="normal")), accounting, known)


def qos_of(fake: FakeSlurm, **columns: str) -> Site:
    """Return the site after the quality of service got limits."""
    names = ("Name", "Flags", "MaxWall", "MaxTRES", "MaxTRESPerNode", "MaxSubmitPU", "MaxSubmitPA", "GrpSubmit")
    (fake.folder / "qos.txt").write_text("|".join({"Name": "normal", **columns}.get(name, "") for name in names) + "\n")
    return read_site()


@pytest.mark.parametrize(
    ("columns", "asked", "fragment"),
    [
        ({"MaxWall": "00:20:00"}, {"runtime_min": 30}, "QOS normal (MaxWall) allows a job 20 min"),
        ({"MaxTRES": "cpu=4,mem=1500M"}, {}, "QOS normal (MaxTRES) allows a job 1500 MB"),
        ({"MaxTRESPerNode": "gres/gpu=1"}, {"gpus": 2, "partition": "gpu"}, "allows a job 1 GPUs"),
        ({"MaxTRES": "cpu=4"}, {"cpus": 5}, "allows a job 4 CPUs"),
    ],
)
def test_a_limit_of_the_quality_of_service(
    accounting: Cluster, fake: FakeSlurm, columns: dict[str, str], asked: dict[str, Any], fragment: str
) -> None:
    assert not faults(check_sizes(plan(request(**asked)), qos_of(fake)))
    site = qos_of(fake, **columns)
    assert fragment in only(faults(check_sizes(plan(request(**asked)), site)))
    settings = {**site.cluster.settings, "AccountingStorageEnforce": "associations"}
    unheeded = replace(site, cluster=replace(site.cluster, settings=settings))
    assert not faults(check_sizes(plan(request(**asked)), unheeded))


def test_limits_count_in_the_order_of_slurm(accounting: Cluster, fake: FakeSlurm) -> None:
    (fake.folder / "mine.txt").write_text("alloc1|root||normal,long|||||||00:10:00||\n")
    asked = request().job
    assert (limit := qos_of(fake).most("minutes", asked)) is not None
    assert (limit.amount, limit.by) == (10, "account alloc1 (MaxWall)")
    assert (limit := qos_of(fake, MaxWall="00:45:00").most("minutes", asked)) is not None and limit.amount == 45
    # The QOS of the partition goes first.
    fake.show["partition"] = [line.replace("QoS=N/A", "QoS=short") for line in PARTITIONS]
    fake.write()
    (fake.folder / "qos.txt").write_text("normal||00:45:00|||||\nshort||00:05:00|||||\n")
    assert (limit := read_site().most("minutes", asked)) is not None and limit.by == "QOS short (MaxWall)"


@pytest.mark.parametrize(("column", "jobs", "is_told"), [("MaxSubmitPU", 50, True), ("MaxSubmitPA", 10, False)])
def test_more_jobs_than_may_be_submitted(
    accounting: Cluster, fake: FakeSlurm, column: str, jobs: int, is_told: bool
) -> None:
    site = qos_of(fake, **{column: "10"})
    found = check_submitted(plan(settings={"jobs": jobs}, variables={"jobs": jobs}), site)
    assert bool(found) is is_told
    if is_told:
        assert "(MaxSubmitPU) lets you have 10" in only(warnings(found)) and "Set `jobs` at the top" in found[0].text


def test_a_partition_that_does_not_take_the_account(accounting: Cluster) -> None:
    closed = replace(accounting.partitions["cpu"], accounts=frozenset({"physics"}))
    cluster = replace(accounting, partitions={"cpu": closed})
    known = [Association("alloc1", None, frozenset(), None)]
    text = only(faults(check_accounts(plan(request(account="alloc1")), cluster, known)))
    assert "does not take account 'alloc1' (it takes: physics)" in text


def test_an_account_where_none_are_kept_counts_for_nothing(fake: FakeSlurm) -> None:
    assert "counts for nothing" in only(warnings(check_accounts(plan(request(account="x")), read_cluster(), None)))


def test_what_sbatch_would_refuse_is_told_in_its_words(fake: FakeSlurm) -> None:
    fake.script("sbatch", "echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; echo 'allocation failure: Job violates "
                "accounting/QOS policy' >&2; exit 1")  # fmt: skip
    options = {"account": "old", "gpus": 2, "gpu_model": "a100", "qos": "high", "constraint": "ib"}
    text = only(faults(check_verdicts(plan(request(**options, extra="--signal=TERM@180 --comment='a b'")))))
    assert "refuse label_structures: AssocMaxSubmitJobLimit Job violates accounting/QOS policy" in text
    call = only(fake.called("sbatch"))
    for option in ("--test-only", "--partition=cpu", "--account=old", "--gpus=a100:2", "--qos=high", "--constraint=ib",
                   "--mem=2000M", "--time=30", "--cpus-per-task=1", "--signal=TERM@180", "--comment=a b"):  # fmt: skip
        assert option in call


def test_equal_requests_are_asked_once(fake: FakeSlurm) -> None:
    found = check_verdicts(plan(request(), request("decide"), request("train_ensemble", mem_mb=4000)))
    assert len(fake.called("sbatch")) == 2 and "2 of 2 different requests" in found[-1].text


# --- the folder -------------------------------------------------------------------------------------

MOUNTS = """/dev/vda1 / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
scratch /scratch lustre rw,flock 0 0
/dev/sdb /scratch/local\\040disk xfs rw 0 0
sshfs#me@x /far fuse.sshfs rw 0 0"""


@pytest.mark.parametrize(
    ("folder", "kind", "shared"),
    [
        ("/home/me/campaign", "nfs4", True),
        ("/scratch/a", "lustre", True),
        ("/scratch/local disk/a", "xfs", False),
        ("/homes", "ext4", False),
        ("/far/away", "fuse.sshfs", True),
    ],
)
def test_file_systems(folder: str, kind: str, shared: bool) -> None:
    assert check_folder.mount_of(Path(folder), MOUNTS)[1] == kind
    assert check_folder.is_shared(kind) is shared


def test_a_local_disk_of_a_cluster_with_other_machines(
    tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_folder, "mount_of", lambda *_: ("/", "ext4"))
    found = check_folder.check_folder(tmp_path, read_cluster())
    assert "local disk" in only(warnings(found)) and not faults(found)
    fake.show["node"] = [line.replace("10.0.0.", "127.0.0.") for line in NODES]
    fake.write()
    assert not warnings(check_folder.check_folder(tmp_path, read_cluster()))


def test_a_label_cache_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "label_cache").write_text("a file where a folder should be")
    assert "label cache can't be written" in only(faults(check_folder.check_folder(tmp_path, None)))


def test_locks_that_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("file locks work" in f.text for f in check_folder.check_folder(tmp_path, None))
    monkeypatch.setattr(check_folder, "_TRY_LOCK", "import sys; open(sys.argv[1])")
    assert any("keep nobody out" in text for text in warnings(check_folder.check_folder(tmp_path, None)))
    assert not list((tmp_path / "results").glob(".dubito*"))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_folder.shutil, "disk_usage", lambda _: type("U", (), {"free": 1e8})())
    assert "only 0.1 GB free" in only(faults(check_folder.check_folder(tmp_path, None)))


# --- threads and nodes ------------------------------------------------------------------------------


def test_threads_of_a_real_calculation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    assert environment(2)["OMP_NUM_THREADS"] == "2"
    assert [f.text for f in check_threads(plan(request(cpus=2)))] == ["PySCF works on 2 threads here, as asked for"]
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    assert "1 of 2 threads at work" in only(warnings(check_threads(plan(request(cpus=2)))))


@pytest.mark.parametrize(
    ("asked", "worked", "cpus", "level", "fragment"),
    [
        (1, 1, 4, "ok", "1 thread here"),
        (1, 3, 4, "warning", "fight for cores"),
        (4, 1, 4, "warning", "1 of 4 threads at work"),
        (4, 2, 2, "warning", "only 2 CPUs"),
        (4, None, 4, "ok", "can't be seen"),
    ],
)
def test_judging_threads(asked: int, worked: int | None, cpus: int, level: str, fragment: str) -> None:
    finding = judge_threads({"asked": asked, "set": asked, "worked": worked}, "here", cpus)
    assert finding.level == level and fragment in finding.text
    ignored = judge_threads({"asked": asked, "set": asked + 1, "worked": worked}, "here", cpus)
    assert ignored.level == "fault" and "OMP_NUM_THREADS is not honoured" in ignored.text


def facts(**more: Any) -> dict[str, Any]:
    return {
        "host": "c1",
        "token": "abc",
        "cpus": 1,
        "dubito": {"version": dubito.__version__, "file": "/x"},
        "threads": {"asked": 1, "set": 1, "worked": 1},
        "compiler": "cc 12",
        "lock_is_seen": True,
        "gpu": {"count": 1, "name": "A100", "shown": "0"},
        **more,
    }


@pytest.mark.parametrize(
    ("seen", "level", "fragment"),
    [
        ({}, "ok", "GPU A100"),
        ({"token": None}, "fault", "another folder"),
        ({"dubito": {"version": "0.0.9", "file": "/old"}}, "fault", "dubito 0.0.9 is found there (/old)"),
        ({"gpu": {"count": 0, "name": "", "shown": "0", "torch": "2.13+cpu"}}, "fault", "torch 2.13+cpu"),
        ({"lock_is_seen": False}, "warning", "is not seen there"),
        ({"compiler": None}, "warning", "no C compiler"),
    ],
)
def test_what_a_node_saw(seen: dict[str, Any], level: str, fragment: str) -> None:
    found = trial.judge_facts(facts(**seen), request(gpus=1), "partition gpu", "abc")
    assert any(f.level == level and fragment in f.text for f in found), found


def test_one_trial_for_each_kind_of_node() -> None:
    asked = plan(
        request("train_ensemble", partition="gpu", gpus=1),
        request("explore_structures", partition="gpu", gpus=1, mem_mb=1500),
        request(mem_mb=4000),
        request("decide", mem_mb=3000),
        request("fit_uncertainty", constraint="ib"),
    )
    kinds = [r.rule for r in trial.kinds_of_node(asked, frozenset())]
    assert kinds == ["explore_structures", "decide", "fit_uncertainty"]
    assert [r.rule for r in trial.kinds_of_node(asked, frozenset({"decide", "label_structures"}))] == [
        "explore_structures",
        "fit_uncertainty",
    ]


def test_a_trial_that_never_starts_is_cancelled(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake.script("sbatch", "echo 77")
    fake.script("scontrol", "echo 'JobId=77 JobName=x JobState=PENDING Reason=PartitionTimeLimit Dependency=(null)'")
    text = only(warnings(trial.check_from_nodes(plan(), tmp_path, wait_s=0.1)))
    assert "PartitionTimeLimit" in text
    assert fake.called("scancel") == ["scancel 77"]
    assert "--time=10" in only(fake.called("sbatch"))
    assert not list((tmp_path / "results").iterdir())


def test_a_trial_that_dies_on_its_node(fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fake.script("sbatch", "echo 77")
    fake.script("scontrol", "echo 'JobId=77 JobState=FAILED Reason=NonZeroExitCode NodeList=c1'")
    asked = plan(settings={"latency_wait": 0.1})
    text = only(faults(trial.check_from_nodes(asked, tmp_path, wait_s=5)))
    assert "on c1 ended as FAILED" in text and "may not see this folder" in text


# --- other schedulers, and Snakemake's reading of profiles ------------------------------------------


def test_other_schedulers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0.9")
    asked = plan(executor="cluster-generic", settings={"cluster": {"submit_cmd": "A=1 qsub -l x={resources.mem_mb}"}})
    assert "qsub can't be found" in only(faults(check_other_scheduler(asked)))
    assert submit_program("'unclosed") == ""


def test_snakemake_reads_the_shipped_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
    for old, new in (
        ("gpus: 0", "gpus: 1"),
        ('gpu_partition: ""', "gpu_partition: fast"),
        ('account: ""', "account: a1"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "config.yaml").write_text(text)
    found = read_plan(TEACHER, "site", ROOT / "Snakefile")
    label, train = found.first("label_structures"), found.first("train_ensemble")
    assert found.executor == "slurm" and found.variables["gpu_partition"] == "fast" and not found.unknown
    assert label is not None and (label.gpus, label.account, label.partition) == (0, "a1", None)
    assert train is not None and (train.gpus, train.partition) == (1, "fast")
    assert label.mem_mb and label.runtime_min and "--signal" in label.extra
    assert found.first("decide") is None  # runs where the driver runs
    retries = [r.mem_mb for r in found.requests if r.rule == "label_structures"]
    assert len(retries) == 1 + found.settings["retries"] and retries == sorted(retries)  # type: ignore[type-var]
    assert not (tmp_path / "results").exists() and not (tmp_path / ".snakemake" / "locks").exists()


def test_a_profile_that_snakemake_can_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "config.yaml").write_text("__use_yte__: true\ndefault-resources:\n  mem_mb: ?memory\n")
    with pytest.raises(ConfigError, match="name 'memory' is not defined"):
        read_plan(TEACHER, "site", ROOT / "Snakefile")
    with pytest.raises(EnvironmentFault, match="Did you mean --profile site"):
        read_plan(TEACHER, "sites", ROOT / "Snakefile")


def test_requests_as_snakemake_gives_them() -> None:
    resources = {"threads": 2, "mem_mb_per_cpu": 500, "runtime": 60, "gres": "gpu:a100:2", "cpus_per_task": 4}
    found = plan_of(
        {
            "executor": "slurm",
            "profiles": [{"name": "slurm", "file": "slurm/config.yaml", "variables": {}}],
            "settings": {"cluster": {"qos": "high"}},
            "rules": [{"rule": "train_ensemble", "attempts": [resources], "unknown": {"mem_mb": "why"}}],
        }
    )
    assert found.requests == (
        Request("train_ensemble", 1, cpus=4, mem_mb=2000, runtime_min=60, qos="high", gpus=2, gpu_model="a100"),
    )
    assert "mem_mb is known only when it runs" in only(warnings(check_profile(replace(found, settings={"jobs": 1}))))


def test_all_faults_are_listed_and_the_exit_code_is_2(fake: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "config.yaml").write_text(
        "executor: slurm\njobs: 2\ndefault-resources:\n  slurm_partition: cpux\n  runtime: 30\n  mem_mb: 2000\n"
        "set-resources:\n  train_ensemble: {slurm_partition: cpu, gpu: 1}\n"
    )
    command = [sys.executable, "-c", "from dubito.cli import main; main()", "check", str(TEACHER), "--profile", "slurm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("fault: ")]
    assert len(told) == 2 and "'cpux'" in told[0] and "train_ensemble (1 GPU)" in told[1], done.stdout
    assert done.stderr.startswith("dubito: 2 faults above") and "Traceback" not in done.stderr
    assert "Next:" not in done.stdout
