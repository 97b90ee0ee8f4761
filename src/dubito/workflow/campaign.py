"""The configuration of a campaign, as the workflow reads, freezes and hands it out."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from glob import escape
from pathlib import Path
from typing import Any

from dubito.config import Config, config_hash, load_config, parse_config
from dubito.config.feasibility import faults_of, needs_count, require_feasible
from dubito.config.inputs import require_inputs
from dubito.core.errors import DataError
from dubito.core.files import read_object, write_text
from dubito.core.logs import get_logger
from dubito.core.progress import announce
from dubito.reporting.pause import PAUSED, end_pause, paused_because, read_summary

SNAPSHOT_VARIABLE = "DUBITO_CONFIG_SNAPSHOT"
CONTAINER_VARIABLE = "DUBITO_CONTAINER"
log = get_logger(__name__)


def load_campaign(
    config: MutableMapping[str, Any], *, where: str = "the configuration", is_driver: bool = True
) -> Config:
    """Validate Snakemake's ``config``, complete it in place with all defaults and return it.

    A job on another machine reads the configuration its driver froze: an edit of the file while the
    campaign runs would otherwise reach the later jobs alone. ``where`` names the file in messages.

    Raises
    ------
    ConfigError
        With one line per fault.
    """
    snapshot = os.environ.get(SNAPSHOT_VARIABLE)
    if is_driver or not snapshot:
        resolved = parse_config(config, where)
        require_inputs(resolved)
        _heed_faults(resolved)
    else:
        resolved = load_config(Path(snapshot))
    config.clear()
    config.update(resolved.model_dump(mode="json"))
    return resolved


def _heed_faults(config: Config) -> None:
    """Refuse what a campaign can't do, or tell of it where labels are there already: they would have to be kept."""
    started = Path("results", config.campaign.name, "iter_000", "selection.json").exists()
    if not started:
        require_feasible(config)
        if needs_count(config):
            from dubito.stages.prepare_structures import count

            require_feasible(config, count(config.data, config.campaign.seed))
        return
    for fault in faults_of(config):
        announce(f"dubito: {fault} The campaign goes on as it is.")


def container_image() -> str | None:
    """Return the image that ``--sdm apptainer`` runs jobs in (envs/dubito.def), None where none is named."""
    return os.environ.get(CONTAINER_VARIABLE) or None


def freeze_config(config: Config) -> Path:
    """Write the resolved configuration where jobs read it, and tell them by an environment variable."""
    from dubito.config.generate import default_yaml

    folder = Path("results", config.campaign.name)
    text = default_yaml(config)
    snapshot = folder / "config" / f"{config_hash(config)}.yaml"
    write_text(snapshot, text)
    write_text(folder / "config.yaml", text)
    os.environ[SNAPSHOT_VARIABLE] = str(snapshot.resolve())
    return snapshot


def is_paused(name: str) -> bool:
    """Say whether a campaign is paused."""
    return paused_because(Path("results", name)) is not None


def resume_paused(name: str) -> None:
    """Take back what is said of a pause, now that jobs run again; they will say so if it lasts."""
    end_pause(Path("results", name), "It was paused, and goes on.")


def require_plans(name: str) -> None:
    """Check the files that say what the graph of jobs looks like; Snakemake would stumble over a damaged one.

    Call it after :func:`dubito.workflow.repair.repair_campaign`, which moves aside those that the ledger knows.

    Raises
    ------
    DataError, StorageError
        When one can't be read, or does not say it.
    """
    folder = Path("results", name)
    for path in sorted(folder.glob("iter_*/selection.json")):
        read_object(path, n_selected=int, n_shards=int)
    for path in sorted(folder.glob("iter_*/driver.json")):
        read_object(path, method=str)
    for path in sorted(folder.glob("iter_*/decision.json")):
        read_object(path, stop=bool)


def forget_unfitted(config: Config) -> None:
    """Delete what says that the driver was not fitted: it looked on when that was written, now it must be fitted."""
    method = config.uncertainty.acquire_with
    for about in Path("results", config.campaign.name).glob(f"iter_*/uncertainty/{escape(method)}.json"):
        if _is_unfitted(about):
            about.with_suffix(".safetensors").unlink(missing_ok=True)
            about.unlink()


def _is_unfitted(about: Path) -> bool:
    try:
        return "not_fitted" in read_object(about)
    except DataError as error:
        log.warning("%s", error)  # the job that reads it says so again, where it matters
        return False


def finished_line(name: str) -> str:
    """Return what is said when a campaign has ended: verdict, report, what to do next."""
    folder = Path("results", name)
    report = folder / "report" / "index.html"
    verdict, following = "", "open it in a browser, or run `dubito status`."
    summary = read_summary(folder)
    if summary is not None:
        verdict = f"{name}: {summary.get('state', '?')}. {summary.get('reason', '')}\n"
        if summary.get("state") == PAUSED:
            following = "look at the failures there; what to type then is said above, and by `dubito status`."
    return f"{verdict}Report: {report}\nNext: {following}"


def labels_spent(name: str, before: int) -> int:
    """Return how many structures the iterations before ``before`` selected for labelling."""
    total = 0
    for k in range(before):
        manifest = Path("results", name, f"iter_{k:03d}", "selection.json")
        if manifest.exists():
            total += int(read_object(manifest, n_selected=int)["n_selected"])
    return total


def failed_line(name: str) -> str:
    """Return what is said when a campaign was stopped by an error, or by too few labels."""
    reason = paused_because(Path("results", name))
    if reason is not None:
        return f"{name}: paused. {reason}"
    return (
        f"{name} did not finish: the error is above, its log under results/{name}/logs. "
        "Next: mend the cause and start the same command again; finished work is kept."
    )
