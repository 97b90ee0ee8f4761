"""A campaign as a user runs it: the repository's Snakefile, in a folder and a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dubito.core.progress import read

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "config" / "examples"


@dataclass
class Campaign:
    """A campaign in a temporary folder."""

    folder: Path
    raw: dict[str, Any]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write()

    def write(self, **sections: dict[str, Any]) -> None:
        """Change keys of sections and write the configuration."""
        for section, values in sections.items():
            self.raw.setdefault(section, {}).update(values)
        (self.folder / "campaign.yaml").write_text(yaml.safe_dump(self.raw))

    @property
    def name(self) -> str:
        return str(self.raw["campaign"]["name"])

    @property
    def results(self) -> Path:
        return self.folder / "results" / self.name

    def command(self, *arguments: str) -> list[str]:
        snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        return [*snakemake, "--configfile", "campaign.yaml", *(arguments or ("--cores", "2"))]

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run snakemake to its end; return what it printed."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, capture_output=True, text=True, timeout=500, check=False
        )
        text = done.stdout + done.stderr
        assert done.returncode == code, text
        return text

    def start(self) -> subprocess.Popen[str]:
        """Start snakemake in a process group of its own."""
        with (self.folder / "driver.log").open("a") as log:
            process = subprocess.Popen(
                self.command(), cwd=self.folder, stdout=log, stderr=log, text=True, start_new_session=True
            )
        self.started.append(process)
        return process

    def dubito(self, *arguments: str) -> str:
        """Run the command line; return what it printed."""
        command = [sys.executable, "-c", "from dubito.cli import main; main()", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def events(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the events of the progress file that have these values."""
        found = read(self.results / "progress.jsonl")
        return [event for event in found if all(event.get(key) == value for key, value in wanted.items())]

    def wait(self, condition: Callable[[], Any], timeout: float = 240) -> Any:
        """Wait until ``condition`` returns something true; return it."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if value := condition():
                return value
            if all(process.poll() is not None for process in self.started):
                break
            time.sleep(0.02)
        raise TimeoutError(f"{condition} in {self.folder}:\n{(self.folder / 'driver.log').read_text()}")

    def selections(self) -> dict[str, bytes]:
        """Return the manifests of all batches."""
        return {path.parent.name: path.read_bytes() for path in sorted(self.results.glob("iter_*/selection.json"))}

    def labels(self) -> dict[str, tuple[int, bytes]]:
        """Return time stamp and content of every label in the cache."""
        files = self.folder.glob("results/label_cache/*/*.json")
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in files if p.name != "settings.json"}

    def jobs_of_dry_run(self) -> set[str]:
        """Return the rules a start would run."""
        text = self.run("-n", "--quiet", "reason")
        if "Nothing to be done" in text:
            return set()
        table = text.split("Job stats:")[-1].split("total")[0].splitlines()
        return {line.split()[0] for line in table if len(line.split()) == 2 and line.split()[1].isdigit()}


def example(name: str) -> dict[str, Any]:
    """Return an example configuration."""
    raw: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    return raw


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text())
