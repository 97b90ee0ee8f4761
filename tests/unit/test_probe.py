"""The forecast of a campaign's cost from a few of its labels."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dubito.cli import probe as probing
from dubito.cli.cluster.plan import Request
from dubito.cli.probe import Probe, compared, core_hours, labels_of, told
from dubito.cli.probe_worker import spread
from dubito.config import load_config, parse_config
from dubito.core.errors import LabelError
from dubito.data.store import read_structures
from dubito.labelling.cache import LabelCache
from dubito.labelling.registry import make_labeller
from dubito.labelling.service import label_structures
from dubito.stages import prepare_structures

TEACHER = Path(__file__).parents[2] / "config" / "examples" / "teacher.yaml"


def one(wall_s: float, **more: Any) -> dict[str, Any]:
    return {"n_atoms": 4, "wall_s": wall_s, "cpu_s": 2 * wall_s, "reused": False, "failed": None, **more}


MEASURED = Probe([one(10.0), one(30.0), one(20.0)], threads=2, peak_mb=900.0, host="c1", processor="Xeon")
# 12 initial structures + 4 x (16 + 20 control) + a profile of 11 points.
DEMO = parse_config({})


def test_the_campaign_of_the_forecast() -> None:
    assert labels_of(DEMO) == (167, "12 initial + 4 x 36 + 11 of profiles")
    capped = parse_config({"campaign": {"max_labels": 50}, "evaluation": {"profiles": []}})
    assert labels_of(capped) == (50, "12 initial + 4 x 36, stopped by campaign.max_labels")
    assert core_hours(167, 20.0, 2) == pytest.approx(167 * 20 * 2 / 3600)


def test_numbers_and_what_they_rest_on() -> None:
    lines = list(told(DEMO, MEASURED))
    text = "\n".join(lines)
    assert "3 labels of 4 atoms: 20.00 s each (10.00 to 30.00), processor 40.00 s, on c1 (Xeon)" in text
    assert "900 MB at most" in text
    assert "167 labels: 1.86 core-hours of DFT (0.928 to 2.78)" in text  # 167 x 2 x (20, 10, 30) / 3600
    assert "it rests on" in lines[-1] and "was busy" not in text
    busy = replace(MEASURED, labels=[one(20.0, cpu_s=10.0)])
    assert "by the processor's time alone it is 0.464 core-hours" in "\n".join(told(DEMO, busy))


def test_known_and_failed_labels_are_told() -> None:
    mixed = replace(MEASURED, labels=[one(10.0, reused=True), one(30.0, failed="scf_not_converged: no")], peak_mb=None)
    text = "\n".join(told(DEMO, mixed))
    assert "1 known before, with the times of then" in text
    assert "warning: 1 of 2 failed, the first: scf_not_converged: no" in text
    assert "memory" not in text


@pytest.mark.parametrize(
    ("request_", "fragments"),
    [
        (Request("label_structures", 1, mem_mb=2000, runtime_min=60), ("ok: 2000 MB", "1200 needed", "ok: 60 min")),
        (
            Request("label_structures", 1, mem_mb=1000, runtime_min=3),
            ("warning: 1000 MB", "2000 or more", "warning: 3 min"),
        ),
    ],
)
def test_what_is_asked_for_is_compared_with_what_was_measured(request_: Request, fragments: tuple[str, ...]) -> None:
    text = "\n".join(compared(DEMO, MEASURED, request_))  # 8 structures x 30 s = 4 min
    assert all(fragment in text for fragment in fragments), text


def test_all_sizes_are_probed() -> None:
    assert spread([3, 9, 3, 9, 3, 9], 2) == [2, 3]  # one of each size
    assert spread([4] * 12, 3) == [2, 6, 10]
    assert spread([4, 4], 5) == [0, 1]


def test_labels_of_a_probe_are_not_made_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from dubito.cli import main; main()", "check", str(TEACHER), "--probe", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 labels of 4 atoms" in done.stdout and "core-hours of DFT" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("Next: run `snakemake")

    config, candidates = load_config(TEACHER), tmp_path / "candidates.h5"
    prepare_structures.run(output=candidates, data=config.data, seed=config.campaign.seed)
    labeller = make_labeller(config.labelling.labeller)
    cache = LabelCache(tmp_path / "results" / "label_cache", labeller.settings())
    structures = read_structures(candidates)
    _, report = label_structures(structures, labeller, cache)
    assert report["reused"] == 3 and report["done"] == len(structures)


def test_a_probe_of_which_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load(TEACHER.read_text())
    raw["data"]["initial"] = {"kind": "rattle", "molecule": "H2O", "n_structures": 3}
    with pytest.raises(LabelError, match="None of the 1 structures probed"):
        probing.run_probe(parse_config(raw), 1, 1, None)
    assert not list(Path("results").glob(".dubito-probe-*"))
