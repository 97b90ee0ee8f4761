"""The benchmarks' own arithmetic: operations against a count by hand, medians, and a run in seconds without peers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dubito.config.model import ModelConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_operations_of_one_scalar_layer_by_hand() -> None:
    from flops import Size, count, total

    c, latent, atoms, pairs = 4, 3, 5, 7
    counted = count(ModelConfig(l_max=0, n_layers=1, n_features=c, n_latent=latent), Size(atoms, pairs))
    # One path 0 x 0 -> 0 with one coefficient: W_in, then W_out and the self-connection, each c x c.
    assert counted["forward"] == {
        "linear maps": 2 * atoms * 3 * c * c,
        "coupling": 2 * pairs,
        "radial weights": 8 * pairs * c,
        "convolution": (1 + 2) * pairs * c,
        "gate": 5 * atoms * c,
        "readout": 2 * atoms * (c * latent + latent),
        "mechanics": 0,
    }
    # Nothing goes back through W_in and the self-connection: the first features know no positions. P, Z and dE/dw.
    assert counted["reverse"] == {
        "linear maps": 2 * atoms * c * c,
        "coupling": 0,
        "radial weights": 10 * pairs * c,
        "convolution": (1 + 2 + 2) * pairs * c,
        "gate": 6 * atoms * c,
        "readout": atoms * c,
        "mechanics": pairs * (6 + 6),
    }
    assert total(counted) == sum(sum(parts.values()) for parts in counted.values())


def test_paths_of_degree_one_by_hand() -> None:
    from flops import layers

    first, middle, last = layers(ModelConfig(l_max=1, n_layers=3))
    # 0x0->0 and 0x1->1 (three coefficients, one for each component).
    assert [path.coefficients for path in first.costs] == [1, 3]
    # 0x0->0, 1x1->0 | 0x1->1, 1x0->1, in the order of targets; 1x1->1 would have the wrong parity.
    assert sorted(path.coefficients for path in middle.costs) == [1, 3, 3, 3]
    assert len(last.costs) == 2
    assert [layer.first for layer in (first, middle, last)] == [True, False, False]


def test_members_share_the_coupling_only() -> None:
    from flops import Size, count, total

    config, size = ModelConfig(l_max=2), Size(27, 450)
    one, four = count(config, size), count(config, size, 4)
    assert four["forward"]["coupling"] == one["forward"]["coupling"]
    shared = one["forward"]["coupling"]
    assert total(four) - shared == pytest.approx(4 * (total(one) - shared))


@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_shares_add_up(l_max: int) -> None:
    from flops import Size, count, shares

    values = shares(count(ModelConfig(l_max=l_max), Size(27, 450)))
    assert sum(values.values()) == pytest.approx(1.0, abs=1e-3)
    assert min(values.values()) >= 0


def test_spread_and_ratios() -> None:
    from _ratios import ratios, spread

    assert spread([1, 2, 3, 4, 5]) == {"median": 3.0, "p10": 1.4, "p90": 4.6, "n": 5}
    # A machine twice as slow in the second round does not touch the ratio.
    assert ratios([10.0, 20.0], [5.0, 10.0]) == [2.0, 2.0]
    assert ratios([10.0], [5.0], factor=4.0) == [8.0]
    # A program that failed after the first round has one ratio.
    assert ratios([10.0, 20.0, 30.0], [5.0]) == [2.0]
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_headlines_from_known_times() -> None:
    from _rounds import Program, Row, Series
    from _summary import headlines

    def series(name: str, train: float, score: float) -> Series:
        return Series(Program(name, "any"), train=[train, 2 * train], score=[score, 2 * score])

    measured = [
        (Row(1, 5), [series("dubito_1", 10, 4), series("dubito_4", 20, 8), series("nequip", 100, 32)]),
        (Row(2, 5), [series("dubito_1", 10, 4), series("dubito_4", 40, 8), series("nequip", 200, 64)]),
    ]
    found = headlines(measured, [])
    assert found["train_step_vs_nequip"] == {"l1": 10.0, "l2": 20.0}
    assert found["train_step_vs_mace"] == {}
    assert found["four_members_vs_one_nequip"] == 5.0
    assert found["vectorised_cost"] == {"4@5": 2.0}
    assert found["scoring_vs_four_nequip_by_l"] == {"l1": 16.0, "l2": 32.0}
    assert found["scoring_vs_four_nequip"] == 16.0
    assert found["peak_fraction_scoring"] is None


def test_stand_in_molecules_are_27_atoms_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import _batches

    monkeypatch.setattr(_batches, "THREEBPA", tmp_path / "missing.xyz.gz")
    for batch, n_atoms in ((_batches.molecules(3), 27), (_batches.silicon(2), 64)):
        assert batch.positions.shape[1:] == (n_atoms, 3) == batch.forces.shape[1:]
        assert len(batch.numbers) == n_atoms
        assert "toy labels" in batch.name
        distance = np.linalg.norm(batch.positions[0][:, None] - batch.positions[0], axis=2) + 9 * np.eye(n_atoms)
        assert distance.min() > 0.6


def test_a_failing_worker_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from _batches import molecules
    from _rounds import Effort, Program, Row, measure

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    effort = Effort(rounds=1, least_rounds=1, seconds_per_row=1.0, threads=1, device="cpu", timeout_s=120.0)
    programs = [Program("broken", "dubito", {"compiled": True}), Program("absent", "nowhere")]
    broken, absent = measure(Row(1, 1, n_features=4, n_layers=1), programs, molecules(1), effort)
    assert "one mode only" in broken.error and not broken.train
    assert "has no environment" in absent.error


def test_speed_runs_without_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBITO_PEERS", str(tmp_path))
    options = "--l-max 1 --batch 5 --threads 1 --rounds 1 --n-features 4 --n-layers 2 --programs dubito_1 dubito_4"
    script = (
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import _publish, json, speed;"
        "speed.publish = lambda name, content: print(json.dumps({'name': name, **content}));"
        "speed.measure_peak = lambda device: {'matmul_gflops': 1.0}; speed.source_hash = lambda: '';"
        f"speed.main({options.split()!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["name"] == "speed_short"
    assert found["peers_missing"] == ["nequip", "mace"]
    assert "not measured, no environment: nequip, mace" in done.stderr
    assert found["train_step_vs_nequip"] == {}
    assert found["scoring_vs_four_nequip"] is None
    assert set(found["vectorised_cost"]) == {"4@5"}
    assert [line["program"] for line in found["rows"]] == ["dubito_1", "dubito_4"]
    assert all("error" not in line and line["train_ms"]["median"] > 0 for line in found["rows"])
    assert all(line["peak_memory_mib"] > 50 for line in found["rows"])
