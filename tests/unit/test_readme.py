"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dubito.config.model import ModelConfig
from dubito.data.statistics import fit_statistics
from dubito.model.artifact import save_potential
from dubito.model.potential import Potential
from dubito.testing.structures import rattled, toy_labels

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    labels = toy_labels(rattled(4, molecules="ammonia"))
    potential = Potential(ModelConfig(n_features=4, n_layers=1), fit_statistics(labels, 4.0), 2)
    potential.initialise(0, [0, 1])
    save_potential(tmp_path / "results/ammonia/iter_004/ensemble.safetensors", potential, provenance={})
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    exec(example, {})  # noqa: S102 (our own README)
    assert len(capsys.readouterr().out.splitlines()) >= 3


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_shell_lines_are_accepted(command: list[str], tmp_path: Path) -> None:
    if command[0] == "make":
        assert re.search(rf"^{command[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        return
    if "--profile" in command:  # a cluster is needed to go further
        assert (ROOT / command[command.index("--profile") + 1] / "config.yaml").is_file()
        return
    if command[0] == "snakemake":
        # The real Snakefile, in a folder of its own, without running anything.
        (tmp_path / "config").symlink_to(ROOT / "config")
        command = ["-m", *command, "--snakefile", str(ROOT / "Snakefile"), "-n"]
    elif command[0] == "dubito":
        (tmp_path / "config").symlink_to(ROOT / "config")
        command = ["-c", "from dubito.cli import main; main()", *command[1:]]
    else:
        pytest.fail(f"no rule to test {command}")
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    text = done.stdout + done.stderr
    # Nothing was started in this folder, which `dubito status` says.
    expected = 2 if "was not started here" in text and "status" in command else 0
    assert done.returncode == expected, text
