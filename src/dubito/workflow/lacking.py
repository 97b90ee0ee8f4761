"""What a campaign folder lacks although nothing in it is wrong, and what to type: said before or after a start.

- Its ledger: without one no damage is found and no date is mended.
- Snakemake's records (``.snakemake/metadata``; a copy of ``results/`` has none): without them Snakemake notices no
  changed setting. The ledger names the configuration that each file was made with.
- Files that were moved aside and that nothing left to do needs.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

from dubito.config import Config, config_hash, load_config
from dubito.core.errors import DubitoError
from dubito.core.files import read_object
from dubito.core.ledger import NAME, Ledger, is_result, read_ledger
from dubito.core.progress import announce
from dubito.workflow.recorded import labeller_settings
from dubito.workflow.repair import record_of

_METADATA = Path(".snakemake", "metadata")
_SHOWN = 8

# The settings in the params of each rule, as far as they change what it writes. `{part}` is the part of the job.
_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "prepare_structures": ("data.initial", "campaign.seed"),
    "prepare_reference": ("data.initial", "evaluation.profiles", "labelling.labeller"),
    "explore_structures": ("sampling", "campaign.seed"),
    "score_candidates": ("scoring",),
    "select_batch": ("selection", "sampling.sanity", "campaign.seed"),
    "label_structures": ("labelling.labeller",),
    "build_dataset": ("data.validation_fraction", "data.allow_model_labels", "campaign.seed"),
    "train_ensemble": ("model", "training", "data.allow_model_labels", "campaign.seed"),
    "fit_uncertainty": ("uncertainty.calibration", "uncertainty.{part}", "campaign.seed"),
    "predict_structures": ("uncertainty.methods",),
    "evaluate": (
        "selection.force_tolerance_ev_per_angstrom",
        "selection.risk",
        "selection.min_accepted_fraction",
        "campaign.seed",
    ),
    "choose_driver": ("uncertainty.auto", "campaign.seed"),
    "decide": ("campaign", "selection", "labelling.max_failed_fraction", "planning", "uncertainty.acquire_with"),
    "write_report": ("report",),
}
_NOT_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "select_batch": ("selection.risk", "selection.min_accepted_fraction"),
    "train_ensemble": ("training.checkpoint_every_epochs", "training.members_per_job"),
}


def warn_of_lost_ledger(name: str) -> bool:
    """Tell that the ledger of a campaign is gone, if it had one; return whether."""
    folder = Path("results", name)
    path = folder / NAME
    # The manifest is written by the second job: the ledger has the line of the first by then.
    if (
        path.exists()
        or not (folder / "state" / "schema.json").exists()
        or not any(folder.glob("iter_*/selection.json"))
    ):
        return False
    announce(
        f"dubito: {path}, which says what made each file, is missing. Without it no damaged file is found, and files "
        "that a copy or another clock dated wrongly are made again. If there is a copy of it, end this with Ctrl-C, "
        "put it back and start again (`-n` shows what would be made). If it is lost, go on: a new one begins."
    )
    return True


def heed_changed_settings(config: Config) -> dict[str, set[str]]:
    """Make decisions anew whose settings were changed, where Snakemake can't notice; tell of all other such files.

    Decisions take a moment. All else may take weeks, and is made again when the user says so.

    Returns
    -------
    The changed settings for each rule concerned
    """
    ledger = read_ledger(Path("results", config.campaign.name, NAME))
    found: dict[str, set[str]] = {}
    for path, stage, keys in _unnoticed(ledger, config):
        found.setdefault(stage, set()).update(keys)
        if stage == "decide":
            Path(path).unlink(missing_ok=True)
    others = {stage: keys for stage, keys in found.items() if stage != "decide"}
    if others:
        rules = " ".join(rule + (" publish_report" if rule == "write_report" else "") for rule in sorted(others))
        announce(
            "dubito: this folder is without Snakemake's records of some results (a copy without .snakemake), so that "
            f"changed settings go unnoticed: {', '.join(sorted(set().union(*others.values())))}. What was made with "
            f"the earlier ones is kept. To have it made again with those of now, start with `--forcerun {rules}`."
        )
    return found


def _unnoticed(ledger: Ledger, config: Config) -> Iterator[tuple[str, str, set[str]]]:
    """Yield the files that were made with other settings and that Snakemake has no record of: path, rule, settings."""
    if _METADATA.with_suffix(".db").exists():
        return  # kept in a database, as the user asked
    changed = _changes(config)
    for path, making in ledger.made.items():
        if not is_result(path, config.campaign.name) or not Path(path).exists() or record_of(_METADATA, path).exists():
            continue
        stage, part = str(making.entry.get("stage", "")), str(making.entry.get("part", ""))
        mine = tuple(name.format(part=part) for name in _SETTINGS.get(stage, ()))
        keys = {
            key
            for key in changed(str(making.entry.get("config_hash", "")))
            if _is_among(key, mine) and not _is_among(key, _NOT_OF.get(stage, ()))
        }
        if keys:
            yield path, stage, keys


def _changes(config: Config) -> Any:
    """Return a function from the hash of an earlier configuration to the settings that are others now."""
    now, hash_now = _flat(config), config_hash(config)

    @cache
    def changed(earlier: str) -> frozenset[str]:
        frozen = Path("results", config.campaign.name, "config", f"{earlier}.yaml")
        if earlier == hash_now or not frozen.exists():
            return frozenset()
        try:
            then = _flat(load_config(frozen))
        except DubitoError:
            return frozenset()  # of a version whose settings can't be compared
        return frozenset(key for key in {*now, *then} if now.get(key) != then.get(key))

    return changed


def _flat(config: Config) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    values["labelling"]["labeller"] = labeller_settings(config)
    return dict(_leaves(values, ""))


def _leaves(values: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value


def _is_among(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def why_unfinished(name: str) -> str:
    """Return why a campaign whose start ended well is not at its end; empty: it is.

    Snakemake once ended without an error while a decision was missing, and a script would have believed it.
    """
    for k in count():
        decision = Path("results", name, f"iter_{k:03d}", "decision.json")
        if not decision.exists():
            break
        if read_object(decision, stop=bool)["stop"]:
            return ""
    return (
        f"the campaign '{name}' is not at its end ({decision} is missing), though no job failed. Start the same "
        "command again: finished work is kept. If it ends like this again, please report it (with .snakemake/log)."
    )


def tell_what_stays_away(name: str, arguments: Sequence[str]) -> list[str]:
    """Tell, at the end of a start, which damaged files were not made again, and the command that makes them.

    ``arguments`` are those Snakemake was called with.
    """
    ledger = read_ledger(Path("results", name, NAME))
    away = [path for path in ledger.made if is_result(path, name) and _is_away(Path(path))]
    if away:
        more = f" (and {len(away) - _SHOWN} more)" if len(away) > _SHOWN else ""
        command = shlex.join(["snakemake", *away[:_SHOWN], *arguments])
        announce(
            f"dubito: {', '.join(away[:_SHOWN])}{more}: damaged, moved aside, and not made again, since nothing "
            "that is left to do needs it. A sound copy may be put back there. To have it made, type "
            f"`{command}`; as some of its bytes may differ then, the start after that makes anew what was made from "
            "it, with labels from the cache."
        )
    return away


def _is_away(path: Path) -> bool:
    return not path.exists() and path.with_name(f"{path.name}.damaged").exists()
