"""What a campaign would ask a cluster for: ``python -m dubito.workflow.requests OUTPUT SNAKEMAKE_ARGUMENTS``.

Snakemake itself reads the profile (with its variables), the workflow and the configuration, as it would for a start,
and evaluates the resources of each rule for every attempt; it stops before anything is planned, run or locked. The
answer is one file of JSON. In a process of its own, because Snakemake leaves handlers and settings behind, and
because the command line must not depend on it.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dubito.core.errors import DubitoError
from dubito.workflow import slurm_site
from dubito.workflow.resources import NETWORK_RULES, labelling_device, network_device

# The rules that label.
LABEL_RULES = ("label_structures", "prepare_reference")
# A shard of unknown size is planned like the first batch of a campaign, see stages/_shards.py.
_STRUCTURES = 8
# What Snakemake keeps among the resources and no scheduler is asked for.
_INTERNAL = ("_nodes", "_cores", "tmpdir")


class _Files:
    """Stands for the input of a job that does not exist yet: every name is one small file."""

    size_mb = 1
    size = 1_000_000

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getattr__(self, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return str(self._path)

    def __bool__(self) -> bool:
        return True


class _Notes(logging.Handler):
    """Keeps what is logged about first attempts; that a third one is cut to a limit is no news."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.said: list[str] = []
        self.attempt = 1

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        text = record.getMessage()
        if self.attempt == 1 and text not in self.said:
            self.said.append(text)


def main(arguments: list[str]) -> int:
    """Write the requests of a start with these Snakemake arguments to the file named first; return the exit code."""
    from snakemake import cli
    from snakemake.api import DAGApi

    output, *rest = arguments
    # A dry run: the workflow then claims nothing and is no second driver beside a living one.
    parser, args = cli.parse_args([*rest, "--dry-run"])
    found: dict[str, Any] = {}
    notes = _Notes()
    # What is cut to a partition's limit is said there; in a start it goes to the log.
    quantities = logging.getLogger("dubito.workflow.escalation")
    quantities.addHandler(notes)
    quantities.setLevel(logging.INFO)

    def collect(api: Any, executor: str = "local", **settings: Any) -> None:
        found.update(_collected(api.workflow_api._workflow, executor, settings, args, notes))
        found["notes"] = notes.said

    refused: list[str] = []

    def remembering(require: Callable[[Any], None]) -> Callable[[Any], None]:
        # A start ends at the first value that can't be right; here all are to be told.
        def remember(workflow: Any) -> None:
            try:
                require(workflow)
            except DubitoError as error:
                refused.append(str(error))

        return remember

    with (
        _replaced(DAGApi, "execute_workflow", collect),
        _replaced(slurm_site, "require_values", remembering(slurm_site.require_values)),
        _replaced(slurm_site, "require_rules", remembering(slurm_site.require_rules)),
    ):
        is_ok = cli.args_to_api(args, parser)
    if not is_ok or not found:
        return 1
    found["refused"] = refused
    Path(output).write_text(json.dumps(found, indent=1, sort_keys=True, default=str))
    return 0


def _collected(workflow: Any, executor: str, settings: dict[str, Any], args: Any, notes: _Notes) -> dict[str, Any]:
    """Return profile, settings and requests of a workflow that is about to be executed."""
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    # Rules ask whether jobs run on this machine; in a dry run they would be told yes.
    workflow._executor_plugin = ExecutorPluginRegistry().get_plugin(executor)
    run, remote = settings["execution_settings"], settings["remote_execution_settings"]
    own = settings.get("executor_settings")
    retries = int(run.retries or 0)
    return {
        "executor": executor,
        "profiles": [_profile(name) for name in (args.profile or [])],
        "settings": {
            "jobs": args.jobs,
            "retries": retries,
            "latency_wait": run.latency_wait,
            "max_status_checks_per_second": remote.max_status_checks_per_second,
            "cluster": dict(vars(own)) if own is not None else {},
        },
        "rules": [_rule(workflow, rule, retries, notes) for rule in workflow.rules if not workflow.is_local(rule)],
        "devices": _devices(workflow),
        "local_rules": sorted(rule.name for rule in workflow.rules if workflow.is_local(rule)),
    }


def _profile(name: str) -> dict[str, Any]:
    """Return where Snakemake found a profile, and its variables as they are written there."""
    import yaml
    from snakemake.cli import get_profile_dir

    found = get_profile_dir(str(name))
    if found is None:
        return {"name": str(name), "file": None, "variables": {}}
    raw = yaml.safe_load(found[1].read_text(encoding="utf-8"))
    return {"name": str(name), "file": str(found[1]), "variables": dict(raw.get("__variables__") or {})}


def _devices(workflow: Any) -> dict[str, str]:
    """Return where the configuration wants each rule that can use a GPU: cpu, cuda or auto."""
    config = workflow.globals["CONFIG"]
    found = dict.fromkeys(NETWORK_RULES, network_device(config))
    return {**found, **dict.fromkeys(LABEL_RULES, labelling_device(config))}


def _rule(workflow: Any, rule: Any, retries: int, notes: _Notes) -> dict[str, Any]:
    """Return what one rule asks for in each attempt, or why that can't be known yet."""
    attempts: list[dict[str, Any]] = []
    unknown: dict[str, str] = {}
    with _input() as files:
        for attempt in range(1, retries + 2):
            notes.attempt = attempt
            found, failed = _resources(rule, _wildcards(workflow), files, attempt)
            attempts.append(found)
            unknown |= failed
    return {"rule": rule.name, "attempts": attempts, "unknown": unknown}


def _resources(rule: Any, wildcards: Any, files: _Files, attempt: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the resources of one attempt; those that only a real job can tell are left out, with the reason."""
    skipped: dict[str, str] = {}
    while True:
        try:
            found = rule.expand_resources(wildcards, files, attempt, skip_evaluation=set(skipped))
            break
        except Exception as error:
            name = _culprit(rule, wildcards, files, attempt, skipped)
            if name is None:
                return {}, {"*": _first_line(error)}
            skipped[name] = _first_line(error)
    values = {key: value for key, value in found.items() if key not in (*_INTERNAL, *skipped)}
    return {"threads": found["_cores"], **values}, skipped


def _culprit(rule: Any, wildcards: Any, files: _Files, attempt: int, skipped: dict[str, str]) -> str | None:
    """Return the resource whose evaluation fails."""
    names = [name for name in rule.resources if name not in ("_cores", "_nodes") and name not in skipped]
    for name in names:
        others = {other for other in names if other != name} | set(skipped)
        try:
            rule.expand_resources(wildcards, files, attempt, skip_evaluation=others)
        except Exception:
            return str(name)
    return None


def _wildcards(workflow: Any) -> Any:
    """Return the wildcards of a job in iteration 1."""
    from snakemake.iocontainers import Wildcards

    config = workflow.globals["config"]
    profiles = [profile["name"] for profile in config["evaluation"]["profiles"]]
    return Wildcards(
        fromdict={
            "campaign": config["campaign"]["name"],
            "iteration": "001",
            "job": "0",
            "shard": "000",
            "group": "0",
            "method": config["uncertainty"]["methods"][0],
            "profile": profiles[0] if profiles else "none",
        }
    )


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute for a while."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def _input() -> Iterator[_Files]:
    """Yield input files of a job of which nothing is known: the manifest of a batch with one shard."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "manifest.json")
        path.write_text(json.dumps({"n_selected": _STRUCTURES, "n_shards": 1, "ids": [], "sharding": {}}))
        yield _Files(path)


def _first_line(error: BaseException) -> str:
    """Return what an error says, without Snakemake's frame around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line not in ("Error:", "WorkflowError:")), type(error).__name__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
