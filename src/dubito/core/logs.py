"""Logging: one line is time, level, logger, message; to the job's log file and, tersely, to stderr."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module (``dubito.…``)."""
    return logging.getLogger(name)


def configure(log_file: Path | None = None, level: int = logging.INFO) -> None:
    """Send dubito's messages to ``log_file``, and warnings and worse to stderr as well."""
    root = logging.getLogger("dubito")
    root.setLevel(level)
    root.propagate = False
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(logging.Formatter("dubito: %(levelname)s: %(message)s"))
    stderr.setLevel(logging.WARNING if log_file is not None else level)
    root.addHandler(stderr)
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(log_file, encoding="utf-8")
        handler.setFormatter(logging.Formatter(FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"))
        root.addHandler(handler)
