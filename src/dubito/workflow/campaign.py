"""The configuration of a campaign, as the workflow reads, freezes and hands it out."""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping
from glob import escape
from pathlib import Path
from typing import Any

from dubito.config import Config, config_hash, load_config, parse_config
from dubito.config.inputs import require_inputs
from dubito.core.files import read_json, write_text
from dubito.reporting.pause import PAUSED, end_pause, paused_because

SNAPSHOT_VARIABLE = "DUBITO_CONFIG_SNAPSHOT"


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
    else:
        resolved = load_config(Path(snapshot))
    config.clear()
    config.update(resolved.model_dump(mode="json"))
    return resolved


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


def forget_unfitted(config: Config) -> None:
    """Delete what says that the driver was not fitted: it looked on when that was written, now it must be fitted."""
    method = config.uncertainty.acquire_with
    for about in Path("results", config.campaign.name).glob(f"iter_*/uncertainty/{escape(method)}.json"):
        if "not_fitted" in read_json(about):
            about.with_suffix(".safetensors").unlink(missing_ok=True)
            about.unlink()


def finished_line(name: str) -> str:
    """Return what is said when a campaign has ended: verdict, report, what to do next."""
    folder = Path("results", name)
    report = folder / "report" / "index.html"
    verdict, following = "", "open it in a browser, or run `dubito status`."
    if (folder / "summary.json").exists():
        summary = read_json(folder / "summary.json")
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
            total += int(json.loads(manifest.read_text())["n_selected"])
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
