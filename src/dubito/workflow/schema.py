"""Which dubito a campaign folder was made by, and what is done about an older or a newer one.

``state/schema.json`` holds the version of the folder's layout (``SCHEMA_VERSION``), of dubito, and of its stages.
Two kinds of version guard two kinds of mistake:

- the layout: which files lie where, and what the workflow reads besides the outputs of its stages. An older layout is
  brought up to date in place, one of the future is refused;
- the stages (:data:`dubito.workflow.versions.STAGE_VERSIONS`): a dubito whose stages are older than those that made
  the results would find everything out of date and make it again, so that is refused as well. Newer stages are no
  fault: what they make differently is made again, which is what their versions are for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from dubito import __version__
from dubito.core.errors import DataError, EnvironmentFault
from dubito.core.files import read_object, write_json
from dubito.core.ledger import NAME
from dubito.core.logs import get_logger
from dubito.workflow.versions import STAGE_VERSIONS

log = get_logger(__name__)

# 1: no such file, no ledger. 2: with the ledger provenance.jsonl.
SCHEMA_VERSION: Final = 2


def _begin_ledger(folder: Path) -> None:
    """From 1 to 2: an empty ledger. What was made before has no line in it, and is left as it is."""
    (folder / NAME).touch()


# How a folder of each older version is brought to the next one.
_UPGRADES: Final[dict[int, Callable[[Path], None]]] = {1: _begin_ledger}


def claim_schema(name: str) -> None:
    """Make sure that this dubito and the campaign's folder suit each other, and write down that it was here.

    Raises
    ------
    EnvironmentFault
        When the folder was made by a newer dubito, or by one too old.
    """
    folder = Path("results", name)
    path = folder / "state" / "schema.json"
    found = _found(folder, path)
    version = found["schema_version"]
    _refuse_newer(name, found)
    while version < SCHEMA_VERSION:
        if version not in _UPGRADES:
            raise EnvironmentFault(
                f"{folder} has the layout {version}, which is older than any this dubito {__version__} can bring up to "
                f"date (layout {SCHEMA_VERSION}). Go on with the dubito that made it ({found.get('dubito', 'unknown')}"
                "), or start again under another campaign.name: labels are kept in results/label_cache and cost "
                "nothing a second time."
            )
        _UPGRADES[version](folder)
        log.info("%s: layout %d brought to %d", folder, version, version + 1)
        version += 1
    write_json(
        path,
        {"schema_version": version, "dubito": __version__, "stage_versions": STAGE_VERSIONS},
    )


def _found(folder: Path, path: Path) -> Mapping[str, Any]:
    """Return what is known of a folder's versions."""
    if not path.exists():
        has_results = any(folder.glob("iter_*"))
        return {"schema_version": 1 if has_results else SCHEMA_VERSION}
    try:
        found = read_object(path, schema_version=int)
        stages = found.get("stage_versions", {})
        if isinstance(stages, dict) and all(type(version) is int for version in stages.values()):
            return found
    except DataError:
        pass
    raise EnvironmentFault(
        f"{path} does not say which dubito the campaign belongs to: it is damaged. If this dubito ({__version__}) "
        f"made it, run `rm {path}` and start the same command again; finished work is kept."
    )


def _refuse_newer(name: str, found: Mapping[str, Any]) -> None:
    """Raise EnvironmentFault when a newer dubito made the folder."""
    recorded = found.get("stage_versions", {})
    newer = [stage for stage, version in recorded.items() if version > STAGE_VERSIONS.get(stage, version)]
    if found["schema_version"] <= SCHEMA_VERSION and not newer:
        return
    what = f"the layout {found['schema_version']} (this dubito knows {SCHEMA_VERSION})"
    if found["schema_version"] <= SCHEMA_VERSION:
        what = f"newer versions of {', '.join(sorted(newer))}, which would all be made again, the older way"
    raise EnvironmentFault(
        f"The campaign '{name}' was made by dubito {found.get('dubito', 'unknown')}, a newer one than this "
        f"({__version__}): it has {what}. Install that version (`git pull && make env` in the checkout, or "
        "`pip install -U dubito`), or start a campaign of another campaign.name with this one."
    )
