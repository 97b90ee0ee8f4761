"""Jobs of studies: their own branch of the workflow, which needs no campaign and touches none."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from functools import cached_property
from pathlib import Path
from typing import Any

from dubito.core.errors import DubitoError
from dubito.core.logs import configure, get_logger
from dubito.core.progress import announce
from dubito.studies.label_savings.cells import Cell, ammonia_file, possible_cells
from dubito.studies.label_savings.pools import AMMONIA, files_key, missing
from dubito.studies.label_savings.settings import STUDY_VERSION, StudySettings, load_settings
from dubito.workflow.targets import FOLDER

log = get_logger(__name__)

SETTINGS = "config/studies/label_savings.yaml"


class Study:
    """What the rules of the study ask: settings, files, cells.

    Parameters
    ----------
    config : Snakemake's, with ``settings`` (the YAML file), ``data_folder`` and ``folder`` where given
    """

    def __init__(self, config: dict[str, Any]) -> None:
        """Read the settings.

        Raises
        ------
        ConfigError
            When they are missing or wrong.
        """
        self.settings_file = Path(config.get("settings", SETTINGS))
        self.settings: StudySettings = load_settings(self.settings_file)
        self.data = Path(config.get("data_folder", self.settings.data_folder))
        self.folder = Path(config.get("folder", FOLDER))
        self.ammonia = ammonia_file(self.folder)

    def cells(self) -> list[Cell]:
        """Return the cells whose data are here, those worth most first.

        Raises
        ------
        ConfigError
            When there is none.
        """
        return possible_cells(self.settings, self.data)

    def skipped(self) -> list[str]:
        """Return for each pool whose data are not here why it is skipped."""
        return [reason for pool in self.settings.pools if (reason := missing(pool, self.data)) is not None]

    def needs(self, pool: str) -> list[str]:
        """Return the files that a pool is made of within the study."""
        return [str(self.ammonia)] if pool == AMMONIA else []

    def key(self, pool: str) -> list[str]:
        """Return what changes the cells of a pool: settings, files of the data, version of the study."""
        return [self.settings.cell_key(pool), self._files[pool], str(STUDY_VERSION)]

    @cached_property
    def _files(self) -> dict[str, str]:
        return {pool: files_key(pool, self.data) for pool in self.settings.pools}


def run_study_job(snakemake: Any) -> None:
    """Do one job of the study, as ``params.part`` says, and leave with 0, 2 (user's fault), 1 (bug)."""
    configure(Path(snakemake.log[0]))
    began = time.monotonic()
    try:
        text = _PARTS[snakemake.params.part](snakemake, Study(dict(snakemake.config)))
    except DubitoError as error:
        log.error("%s\nThe log is %s", error, snakemake.log[0])
        sys.exit(error.exit_code)
    except Exception:
        log.error("%s\nThis is a bug in dubito. The log is %s", traceback.format_exc(), snakemake.log[0])
        sys.exit(1)
    announce(f"[study] {time.monotonic() - began:7.1f} s  {text}")
    logging.shutdown()


def _ammonia(snakemake: Any, study: Study) -> str:
    from dubito.studies.label_savings.ammonia import make_ammonia

    made = make_ammonia(
        Path(snakemake.output[0]), study.settings.ammonia, study.settings.seed, Path(snakemake.params.cache)
    )
    return f"{len(made)} ammonia frames labelled"


def _cell(snakemake: Any, study: Study) -> str:
    import torch

    from dubito.studies.label_savings.cells import run_cell_file
    from dubito.studies.label_savings.pools import load_pool

    torch.set_num_threads(snakemake.threads)
    wildcards = snakemake.wildcards
    cell = Cell(wildcards.pool, wildcards.selector, int(wildcards.seed))
    found = run_cell_file(cell, study.folder, study.settings, load_pool(cell.pool, study.data, study.ammonia))
    last = found["curve"][-1]
    error = last["force_rmse_mev_per_angstrom"]
    return f"{cell.pool} {cell.selector} {cell.seed}: {error:.0f} meV/Å with {last['labels']} labels"


def _summary(snakemake: Any, study: Study) -> str:
    from dubito.core.files import write_json
    from dubito.studies.label_savings.summary import summarise

    found = summarise(study.folder, study.settings, study.data)
    write_json(Path(snakemake.output[0]), found)
    return f"{found['finished_cells']} of {found['cells']} campaigns compared{_not_counted(found['not_counted'])}"


def _not_counted(refused: dict[str, int]) -> str:
    """Say what lies there and does not count: Snakemake remakes only what it has made itself."""
    if not refused:
        return ""
    listed = ", ".join(f"{n} with {reason}" for reason, n in refused.items())
    return f"; not counted: {listed} (python benchmarks/label_savings.py --run makes these anew)"


_PARTS = {"ammonia": _ammonia, "cell": _cell, "summary": _summary}
