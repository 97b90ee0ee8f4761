"""The examples run, and what their pages claim holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FIGURES = ("evidential.png", "gaussian_process.png", "references.png")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    pytest.importorskip("matplotlib", reason="the figures need matplotlib")
    pytest.importorskip("gpytorch", reason="the Gaussian process needs gpytorch")
    out = tmp_path_factory.mktemp("toy")
    command = [sys.executable, str(EXAMPLES / "toy_2d" / "toy.py"), "--short", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout.splitlines()[-1])


def test_references_doubt_between_the_clusters(toy: tuple[Path, dict[str, float]]) -> None:
    _, numbers = toy
    assert numbers["ensemble"] > 2
    assert numbers["neighbors"] > 2
    assert numbers["mixture_auroc"] > 0.99


def test_mending_the_gaussian_process_helps(toy: tuple[Path, dict[str, float]]) -> None:
    _, numbers = toy
    assert numbers["svgp mended"] > 2.5
    assert numbers["svgp mended"] > 1.5 * numbers["svgp as found"]


def test_the_regulariser_moves_the_split_and_not_the_total(toy: tuple[Path, dict[str, float]]) -> None:
    _, numbers = toy
    split = numbers["aleatoric inside 0.01 seed 0"] / numbers["aleatoric inside 0.3 seed 0"]
    total = numbers["total inside 0.01 seed 0"] / numbers["total inside 0.3 seed 0"]
    assert split > 2
    assert 0.7 < total < 1.4


def test_bare_evidential_regression_does_not_see_the_gaps_as_the_others_do(
    toy: tuple[Path, dict[str, float]],
) -> None:
    _, numbers = toy
    assert numbers["epistemic 0.01 seed 0"] < numbers["ensemble"] / 3


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_are_drawn_and_the_committed_ones_small(toy: tuple[Path, dict[str, float]], figure: str) -> None:
    out, _ = toy
    assert (out / figure).stat().st_size > 5_000
    assert (EXAMPLES / "toy_2d" / figure).stat().st_size < 150_000
