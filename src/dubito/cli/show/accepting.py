"""Keep a file of a campaign that was changed on purpose: the ledger says so, and it is no longer taken for damaged."""

from __future__ import annotations

import getpass
import socket
import time
from pathlib import Path

from dubito.cli.show.record import open_book
from dubito.core.errors import DataError
from dubito.core.ledger import NAME, append
from dubito.core.provenance import code_version, slurm_job, versions


def accept_change(file: Path) -> str:
    """Write into the ledger that a file is what it should be; return a line about it.

    Raises
    ------
    DataError
        When the file is not there, belongs to no campaign, or is what its job wrote.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist. Name the changed file, where its campaign expects it.")
    found = open_book(file)
    if found is None or found[1] not in found[0].ledger.made:
        raise DataError(f"{file} is in no campaign's ledger: no start will take it for damaged.")
    book, path = found
    making = book.ledger.made[path]
    state = book.ledger.look(path, book.root)
    if state["sha256"] == making.sha256:
        raise DataError(f"{file} is what its job wrote; there is no change to accept.")
    entry = {
        "stage": "changed by hand",
        "iteration": making.entry.get("iteration"),
        "part": getpass.getuser(),
        "time": time.time(),
        "inputs": {},
        "outputs": {path: state},
        "host": socket.gethostname(),
        "slurm_job": slurm_job(),
        "code": code_version(),
        "versions": versions(),
    }
    append(book.root / "results" / path.split("/")[1] / NAME, entry)
    return f"{file} is accepted as changed by hand."
