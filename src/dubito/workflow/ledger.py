"""The hook of every job into the campaign's ledger: what made which files, from what."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dubito.config import config_hash, parse_config
from dubito.core.errors import DataError
from dubito.core.hashing import hash_file, hash_json
from dubito.core.ledger import NAME, SHA256, append, is_result, read_ledger, state_of
from dubito.core.provenance import CODE_VARIABLE, checkout, code_version, set_context, slurm_job, versions
from dubito.workflow.campaign import SNAPSHOT_VARIABLE
from dubito.workflow.versions import STAGE_VERSIONS

# On some network file systems another machine sees the line of a job later than its files, s.
_AGAIN_S = 2.0


class Making:
    """The making of the outputs of one job: say so before the stage runs, write it down when it succeeded."""

    def __init__(self, stage: str, iteration: int | None, part: str, snakemake: Any) -> None:
        """Hash the inputs, and let every file that is written from now on carry what this job is.

        ``snakemake`` is the object Snakemake gives to scripts.

        Raises
        ------
        DataError
            When an input is not what the job that made it wrote.
        """
        campaign = snakemake.config["campaign"]["name"]
        params = dict(snakemake.params.items())
        self._path = Path("results", campaign, NAME)
        self._outputs = [str(path) for path in snakemake.output]
        paths = dict.fromkeys(str(path) for path in snakemake.input)
        self._inputs = _sound_inputs(campaign, self._path, [path for path in paths if Path(path).is_file()])
        self._about = {
            "stage": stage,
            "iteration": iteration,
            "part": part,
            "config_hash": _config_hash(snakemake.config),
            "stage_version": STAGE_VERSIONS.get(stage, 0),
            "seed": params.get("seed", snakemake.config["campaign"].get("seed")),
            "params_hash": hash_json(params),
        }
        hashes = {path: about["sha256"] for path, about in self._inputs.items()}
        set_context(campaign=campaign, **self._about, inputs=hashes)

    def write(self, usage: Mapping[str, Any]) -> None:
        """Append the line of this job, whose outputs are all there now; ``usage`` has ``wall_s`` and ``cpu_s``.

        Raises
        ------
        StorageError
            When the line can't be written.
        """
        entry = {
            **self._about,
            "time": time.time(),
            "inputs": self._inputs,
            "outputs": _hashed(self._outputs),
            "versions": versions(),
            "code": code_version(),
            "host": socket.gethostname(),
            "slurm_job": slurm_job(),
            "wall_s": usage["wall_s"],
            "cpu_s": usage["cpu_s"],
        }
        append(self._path, entry)


def _sound_inputs(campaign: str, ledger_path: Path, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return hash, size and time of the inputs of a job.

    They are hashed anyway. Between a start, which looks at all files, and this job, one may have been damaged; torch
    and safetensors would read it without complaint. A file that no job of the ledger made is taken as it is.
    """
    for wait_s in (_AGAIN_S, None):
        ledger = read_ledger(ledger_path, warn=False)
        found = {path: ledger.look(path) for path in paths}
        makings = {path: ledger.made[path] for path in paths if is_result(path, campaign) and path in ledger.made}
        wrong = [path for path, making in makings.items() if found[path]["sha256"] != making.sha256]
        if not wrong:
            break
        if wait_s is None:
            more = f" (and {len(wrong) - 1} more inputs of this job)" if len(wrong) > 1 else ""
            raise DataError(
                f"{wrong[0]}{more} is not what its job wrote: it was damaged, or changed by hand, since. Start the "
                "campaign again as before: it is then moved aside and made anew, from labels that are kept. If you "
                f"changed it on purpose, type `dubito show --accept {wrong[0]}` first."
            )
        time.sleep(wait_s)
    return found


def hand_over_code_version() -> None:
    """Find out which code runs, and whether it differs from its commit; jobs get it by an environment variable."""
    code = code_version()
    if "+g" in code and not code.endswith(".changed") and _is_changed(checkout()):
        code += ".changed"
    os.environ[CODE_VARIABLE] = code


def _is_changed(folder: Path) -> bool:
    """Say whether tracked files differ from the commit; no where git can't tell."""
    command = ["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and bool(answer.stdout.strip())


def _config_hash(config: Mapping[str, Any]) -> str:
    """Return the hash of the configuration that the driver froze, which is the name of its file."""
    snapshot = os.environ.get(SNAPSHOT_VARIABLE)
    return Path(snapshot).stem if snapshot else config_hash(parse_config(dict(config), "the configuration"))


def _hashed(paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for path in map(Path, paths):
        if path.is_file():
            state = state_of(path)
            found[str(path)] = {"sha256": hash_file(path, SHA256), "size": state.size, "mtime_ns": state.mtime_ns}
    return found
