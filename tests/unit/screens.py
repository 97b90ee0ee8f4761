"""What `dubito status` shows of a planted campaign."""

from __future__ import annotations

import os
import subprocess
import sys

from synthetic_progress import Planted

from dubito.cli.status import Watcher
from dubito.cli.status.queue import Queue
from dubito.cli.status.screen import HEIGHT, WIDTH, screen
from dubito.cli.status.standing import Standing


def look(planted: Planted, queue: Queue | None = None) -> Standing:
    return Watcher(planted.name, base=planted.base).look(queue or Queue(), planted.clock)


def shown(planted: Planted, queue: Queue | None = None, width: int = WIDTH) -> str:
    """Return the screen as text; what every screen promises is checked here."""
    lines = [line.text for line in screen(look(planted, queue), width)]
    assert len(lines) <= HEIGHT
    for line in lines:
        assert len(line) <= width or line.strip().startswith(("log: ", "Slurm's: ")) or " " not in line.strip(), line
    assert sum(line.startswith("Next: ") for line in lines) == 1
    return "\n".join(lines)


def flat(text: str) -> str:
    """Undo the line breaks."""
    return " ".join(text.split())


def dubito(planted: Planted, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dubito.cli import main; main()", "status", "--config", "config.yaml"]
    return subprocess.run(
        [*command, *arguments], cwd=planted.base, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
