"""What `dubito status` says of cost and of the rest, against closed forms."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_progress import (
    BUILD_S,
    DECIDE_S,
    EXPLORE_S,
    FIT_S,
    LABEL_S,
    SELECT_S,
    Planted,
    iteration_s,
    train_s,
)

from dubito.cli.status.forecast import fit
from dubito.cli.status.queue import Queue
from dubito.cli.status.standing import Standing, Watcher


def look(planted: Planted) -> Standing:
    return Watcher(planted.name, base=planted.base).look(Queue(), planted.clock)


def cpu_s(planted: Planted, labels: int) -> float:
    """Processor time of one iteration after the first that trains on ``labels``."""
    return EXPLORE_S + SELECT_S + planted.batch * LABEL_S + BUILD_S + train_s(labels) + FIT_S + DECIDE_S


def test_a_fresh_campaign_has_no_forecast(tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    assert look(planted).forecast is None
    planted.explore(0)
    assert look(planted).forecast is None


def test_the_rest_between_iterations_has_a_closed_form(tmp_path: Path) -> None:
    planted = Planted(tmp_path, max_iterations=5)
    for k in range(4):
        planted.iteration(k)
    found = look(planted).forecast
    assert found is not None
    assert (found.iterations_left, found.labels_left, found.based_on_iterations) == (2, 20, 4)
    walls = iteration_s(50, planted.per_shard) + iteration_s(60, planted.per_shard)
    assert found.wall_hours == pytest.approx(walls / 3600)
    assert found.cpu_hours == pytest.approx((cpu_s(planted, 50) + cpu_s(planted, 60)) / 3600)
    assert found.dft_cpu_hours == pytest.approx(20 * LABEL_S / 3600)
    assert found.deviation == pytest.approx(0.0, abs=1e-9)
    assert found.not_measured == []


def test_the_rest_in_the_midst_of_a_batch_counts_what_is_there(tmp_path: Path) -> None:
    planted = Planted(tmp_path, max_iterations=4)
    for k in range(4):
        planted.iteration(k)
    planted.explore(4)
    for shard in range(planted.shards):
        planted.start("label_structures", 4, f"{shard:03d}", host="elsewhere")
    planted.clock += 2 * LABEL_S
    for shard in range(planted.shards):
        planted.beat(4, shard, done=2)
    found = look(planted).forecast
    assert found is not None
    assert (found.iterations_left, found.labels_left) == (1, 6)
    assert found.batch_wall_hours == pytest.approx(3 * LABEL_S / 3600)
    rest = BUILD_S + train_s(50) + FIT_S + DECIDE_S
    assert found.wall_hours == pytest.approx((3 * LABEL_S + rest) / 3600)
    assert found.cpu_hours == pytest.approx((6 * LABEL_S + rest) / 3600)


def test_the_budget_bounds_the_rest(tmp_path: Path) -> None:
    planted = Planted(tmp_path, max_iterations=9, max_labels=45)
    for k in range(4):
        planted.iteration(k)
    found = look(planted).forecast
    assert found is not None
    assert (found.iterations_left, found.labels_left) == (1, 5)
    assert found.dft_cpu_hours == pytest.approx(5 * LABEL_S / 3600)


def test_the_first_training_is_reckoned_by_its_epochs(tmp_path: Path) -> None:
    planted = Planted(tmp_path, max_iterations=0)
    planted.explore(0)
    planted.label(0)
    planted.run("build_dataset", 0, BUILD_S)
    planted.start("train_ensemble", 0, "0", host="elsewhere")
    planted.clock += 90
    planted.epoch(0, 50, 200)
    found = look(planted).forecast
    assert found is not None
    assert found.wall_hours == pytest.approx(90 * 3 / 3600)
    assert found.iterations_left == 1
    assert found.based_on_iterations == 0


def test_what_was_never_measured_is_named(tmp_path: Path) -> None:
    planted = Planted(tmp_path, max_iterations=2)
    planted.iteration(0)
    found = look(planted).forecast
    assert found is not None
    assert found.not_measured == ["explore_structures"]
    # Proportional to the labels, since one training says nothing of a constant part.
    trained = train_s(10) / 10 * (20 + 30)
    each = SELECT_S + 10 * LABEL_S + BUILD_S + FIT_S + DECIDE_S
    assert found.cpu_hours == pytest.approx((2 * (each - FIT_S) + FIT_S / 10 * 50 + trained) / 3600)


def test_a_night_without_a_driver_does_not_slow_the_forecast(tmp_path: Path) -> None:
    walls = []
    for night in (0.0, 40_000.0):
        planted = Planted(tmp_path / str(night), max_iterations=3)
        planted.iteration(0)
        planted.iteration(1)
        planted.explore(2)
        planted.clock += night
        planted.label(2)
        planted.finish(2)
        found = look(planted).forecast
        assert found is not None
        walls.append(found.wall_hours)
    assert walls[0] == pytest.approx(walls[1])


def test_one_slow_iteration_does_not_bend_the_line() -> None:
    points = [(10.0, 30.0), (20.0, 50.0), (30.0, 70.0), (40.0, 90.0), (50.0, 900.0)]
    line = fit(points, grows=True)
    assert line is not None
    assert line.at(60) == pytest.approx(130, rel=0.3)
    falling = fit([(1, 9.0), (2, 5.0), (3, 1.0)], grows=True)
    assert falling is not None
    assert falling.slope == 0
    assert fit([], grows=True) is None


def test_cost_counts_what_was_lost(tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    planted.iteration(0)
    before = look(planted).cost
    # One that failed (it says what it took), one that Slurm killed, one that was stopped and resumed.
    planted.start("explore_structures", 1, "0")
    planted.clock += 50
    planted.end("failed", "explore_structures", 1, "0", wall=50, cpu_s=80.0, error="X")
    planted.start("explore_structures", 1, "0", slurm_job="7")
    planted.clock += 100
    planted.event("died", "explore_structures", 1, "0", reason="out_of_memory", slurm_job="7")
    planted.start("train_ensemble", 1, "0")
    planted.clock += 30
    planted.end("interrupted", "train_ensemble", 1, "0", wall=30, gpu_s=30.0, signal="SIGUSR1")
    planted.start("train_ensemble", 1, "0")
    planted.event("resumed", "train_ensemble", 1, "0", epoch=40, reached=47)
    planted.clock += 10
    planted.end("finished", "train_ensemble", 1, "0", wall=10)
    cost = look(planted).cost
    assert (cost.lost_jobs, cost.lost_unknown_jobs, cost.epochs_repeated) == (3, 0, 7)
    assert cost.lost_cpu_hours == pytest.approx((80 + 100 + 30) / 3600)
    assert cost.lost_gpu_hours == pytest.approx(30 / 3600)
    assert cost.cpu_hours - before.cpu_hours == pytest.approx((80 + 100 + 30 + 10) / 3600)
    assert cost.wall_hours - before.wall_hours == pytest.approx(190 / 3600)


def test_labels_cost_what_the_jobs_that_make_them_cost(tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    planted.iteration(0)
    cost = look(planted).cost
    assert cost.dft_cpu_hours == pytest.approx(planted.batch * LABEL_S / 3600)
    assert cost.wall_hours == pytest.approx(iteration_s(10, planted.per_shard, first=True) / 3600)
