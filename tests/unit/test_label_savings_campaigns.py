"""Replayed campaigns: fair, repeatable, resumable; pools whose test nobody trains on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.config.labelling import TeacherConfig
from dubito.config.model import ModelConfig
from dubito.core.errors import ConfigError, DataError
from dubito.core.files import read_json, write_json
from dubito.data.structures import Structures
from dubito.studies.label_savings import ammonia, cells, loop, stamp
from dubito.studies.label_savings.cells import Cell, ammonia_file, cells_in_order, run_cells
from dubito.studies.label_savings.loop import make_start, run_cell
from dubito.studies.label_savings.pools import FROM_FILES, LabelledPool, ammonia_pool, load_pool, missing
from dubito.studies.label_savings.settings import AmmoniaSettings, PoolSettings, StudySettings
from dubito.studies.label_savings.stamp import stamp_cells
from dubito.studies.label_savings.summary import summarise
from dubito.testing.structures import rattled

ROOT = Path(__file__).parents[2]
DATA = ROOT / ".." / "shared" / "data"
AMMONIA = AmmoniaSettings(
    n_thermal=40, n_rare=6, n_test_uniform=9, n_test_thermal=5, labeller=TeacherConfig(kind="teacher")
)
SETTINGS = StudySettings(
    selectors=["lcmd", "top_uncertainty"],
    n_seeds=2,
    pools={"ammonia_rare": PoolSettings(labels=[4, 7, 12], r_max_angstrom=4.0)},
    ammonia=AMMONIA,
    model=ModelConfig(l_max=1, n_layers=1, n_features=4, radial_hidden=[8], n_latent=4),
    n_members=2,
    n_steps=16,
    batch_size=2,
    learning_rate=0.02,
    n_resamples=50,
)


@pytest.fixture(scope="module")
def frames() -> Structures:
    """Frames of an ammonia pool, with shorter walks than those of the study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ammonia, "STEPS_BEFORE", 40)
        patch.setattr(ammonia, "STEPS_BETWEEN", 15)
        return ammonia.ammonia_frames(AMMONIA, 0)


@pytest.fixture(scope="module")
def pool(frames: Structures, tmp_path_factory: pytest.TempPathFactory) -> LabelledPool:
    return ammonia_pool(labelled(frames, tmp_path_factory.mktemp("pool") / "ammonia.h5"))


def labelled(frames: Structures, path: Path) -> Structures:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ammonia, "ammonia_frames", lambda settings, seed: frames)
        return ammonia.make_ammonia(path, AMMONIA, 0, None)


# --- the rare pool ----------------------------------------------------------------------------------


def test_the_height_and_its_gradient() -> None:
    one = rattled(1, displacement=0.1, molecules="ammonia").positions
    h, gradient = ammonia.height(one)
    assert abs(h) == pytest.approx(0.37, abs=0.25)
    assert ammonia.height(one * [1, 1, -1])[0] == pytest.approx(-h)
    numbers = np.zeros((4, 3))
    for i, j in np.ndindex(4, 3):
        step = np.zeros((4, 3))
        step[i, j] = 1e-5
        numbers[i, j] = (ammonia.height(one + step)[0] - ammonia.height(one - step)[0]) / 2e-5
    np.testing.assert_allclose(gradient, numbers, atol=1e-8)


def test_few_frames_of_the_rare_pool_are_nearly_planar(frames: Structures) -> None:
    part = np.array(frames.text("origin/sampler"))
    h = np.array([ammonia.height(one.positions)[0] for one in frames])
    assert {name: int((part == name).sum()) for name in set(part)} == {
        "pool_thermal": 40, "pool_rare": 6, "test_uniform": 9, "test_thermal": 5,
    }  # fmt: skip
    assert np.all(np.abs(h[part == "pool_rare"]) < AMMONIA.rare_height_angstrom + 0.1)
    assert np.all(h[np.isin(part, ["pool_thermal", "test_thermal"])] > 0.1)
    # Along the test heights go evenly from one side to the other; the umbrella leaves them some 0.02 Å of play.
    wanted = np.linspace(-AMMONIA.largest_height_angstrom, AMMONIA.largest_height_angstrom, 9)
    np.testing.assert_allclose(h[part == "test_uniform"], wanted, atol=0.1)


def test_campaigns_on_the_rare_pool_start_in_the_pyramid(pool: LabelledPool) -> None:
    heights = [ammonia.height(pool.structures[i].positions)[0] for i in pool.initial]
    assert len(heights) == 40
    assert min(heights) > 0.1
    assert 0 < pool.is_hard.sum() < len(pool.test)


# --- campaigns --------------------------------------------------------------------------------------


def test_all_selectors_start_alike_and_pick_differently(pool: LabelledPool) -> None:
    found = {name: run_cell(pool, name, 0, SETTINGS) for name in ("random", "lcmd", "top_uncertainty")}
    first = [one["curve"][0] for one in found.values()]
    assert first[0] == first[1] == first[2]
    assert len({one["initial"] for one in found.values()}) == 1
    assert [point["labels"] for point in found["lcmd"]["curve"]] == [4, 7, 12]
    assert len({tuple(one["picks"][0]) for one in found.values()}) == 3
    for one in found.values():
        bought = [name for batch in one["picks"] for name in batch]
        assert len(bought) == len(set(bought)) == 8
        assert not set(bought) & set(pool.test.ids)


def test_the_same_seed_gives_the_same_campaign_and_another_seed_another(pool: LabelledPool) -> None:
    one, again = (run_cell(pool, "lcmd", 0, SETTINGS) for _ in range(2))
    given = run_cell(pool, "lcmd", 0, SETTINGS, make_start(pool, 0, SETTINGS))
    for same in (again, given):
        assert {**same, "cpu_s": 0} == {**one, "cpu_s": 0}
    assert run_cell(pool, "random", 1, SETTINGS)["initial"] != one["initial"]


def test_labels_of_what_is_not_bought_and_of_the_test_change_no_pick(pool: LabelledPool) -> None:
    one = run_cell(pool, "lcmd", 0, SETTINGS)
    bought = {name for batch in one["picks"] for name in batch}
    start = set(make_start(pool, 0, SETTINGS).labelled.tolist())
    secret = np.array([i not in start and name not in bought for i, name in enumerate(pool.structures.ids)])
    noise = np.where(secret, 5.0, 0.0)
    other = LabelledPool(
        pool.name,
        pool.structures.with_columns(
            labels__energy=pool.structures.energy + noise,
            labels__forces=pool.structures.forces + noise[pool.structures.structure_of_atom][:, None],
        ),
        pool.initial,
        pool.test.with_columns(labels__energy=pool.test.energy - 3.0),
        pool.is_hard,
        pool.hard,
    )
    again = run_cell(other, "lcmd", 0, SETTINGS)
    assert again["picks"] == one["picks"]
    # A constant offset of the test's energies is an error, and none once the mean is taken off.
    for was, now in zip(one["curve"], again["curve"], strict=True):
        assert now["force_rmse_mev_per_angstrom"] == was["force_rmse_mev_per_angstrom"]
        assert now["energy_rmse_mev"] > 2000
        assert now["energy_spread_mev"] == pytest.approx(was["energy_spread_mev"], rel=1e-6)


def test_a_pool_too_small_is_refused(pool: LabelledPool) -> None:
    much = SETTINGS.model_copy(update={"pools": {"ammonia_rare": PoolSettings(labels=[4, 500])}})
    with pytest.raises(DataError, match="holds 46 structures, 40 of them to start from"):
        run_cell(pool, "random", 0, much)


# --- resuming ---------------------------------------------------------------------------------------


def test_a_stopped_study_repeats_no_finished_campaign(
    frames: Structures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(frames, ammonia_file(tmp_path))
    made: list[Cell] = []
    real = loop.run_cell

    def counted(pool: Any, selector: str, seed: int, *rest: Any) -> dict[str, Any]:
        if len(made) == 4 and not killed:
            killed.append(True)
            raise KeyboardInterrupt
        made.append(Cell(pool.name, selector, seed))
        return real(pool, selector, seed, *rest)

    killed: list[bool] = []
    monkeypatch.setattr(loop, "run_cell", counted)
    order = cells_in_order(SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        list(run_cells(order, tmp_path, SETTINGS, tmp_path))
    partial = summarise(tmp_path, SETTINGS, tmp_path)
    assert (partial["finished_cells"], partial["is_complete"]) == (4, False)
    assert [cell for cell, _ in run_cells(order, tmp_path, SETTINGS, tmp_path)] == order[4:]
    assert made == order
    assert not list(run_cells(order, tmp_path, SETTINGS, tmp_path))
    found = summarise(tmp_path, SETTINGS, tmp_path)
    assert found["is_complete"]
    assert set(found["savings"]) == {"ammonia_rare.lcmd", "ammonia_rare.top_uncertainty"}
    assert found["savings"]["ammonia_rare.lcmd"]["n_seeds"] == 2
    assert "other_test" in found["savings"]["ammonia_rare.lcmd"]


def test_other_data_make_the_cells_anew(pool: LabelledPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [pool]
    monkeypatch.setattr(cells, "load_pool", lambda *_: now[0])
    ammonia_file(tmp_path).touch()
    one = [Cell("ammonia_rare", "random", 0)]
    assert len(list(run_cells(one, tmp_path, SETTINGS, tmp_path))) == 1
    assert not list(run_cells(one, tmp_path, SETTINGS, tmp_path))
    # A label of the test, one of the pool, and which of the test are hard.
    for other in (
        replace(pool, test=pool.test.with_columns(labels__energy=pool.test.energy + 1e-6)),
        replace(pool, structures=pool.structures.with_columns(labels__forces=pool.structures.forces * 1.001)),
        replace(pool, is_hard=~pool.is_hard),
    ):
        now[0] = other
        assert len(list(run_cells(one, tmp_path, SETTINGS, tmp_path))) == 1
    now[0] = pool
    assert len({pool.data_hash, other.data_hash}) == 2
    assert replace(pool).data_hash == pool.data_hash


def test_stamping_checks_what_a_cell_started_from(
    pool: LabelledPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ammonia_file(tmp_path).touch()
    monkeypatch.setattr(cells, "load_pool", lambda *_: pool)
    monkeypatch.setattr(stamp, "load_pool", lambda *_: pool)
    both = [Cell("ammonia_rare", name, 0) for name in ("random", "lcmd")]
    list(run_cells(both, tmp_path, SETTINGS, tmp_path))
    files = [cell.path(tmp_path) for cell in both]
    whole = [read_json(file) for file in files]
    bare = [{key: value for key, value in one.items() if key not in ("data", "version")} for one in whole]
    for wrong in ({"initial": "another"}, {"n_test": 7}, {"picks": [["unknown"]]}):
        write_json(files[0], bare[0])
        write_json(files[1], bare[1] | wrong)
        with pytest.raises(DataError, match=r"lcmd/0.json started from other structures"):
            stamp_cells(tmp_path, SETTINGS, tmp_path)
        assert read_json(files[0]) == bare[0]  # none was stamped
    write_json(files[1], bare[1])
    assert stamp_cells(tmp_path, SETTINGS, tmp_path) == 2
    assert [read_json(file) for file in files] == [one | {"stamped": True} for one in whole]
    assert summarise(tmp_path, SETTINGS, tmp_path)["stamped"] == 2
    # Those that name their data are left alone, also when the data are others.
    write_json(files[0], whole[0] | {"data": "others"})
    assert stamp_cells(tmp_path, SETTINGS, tmp_path) == 0


def test_pools_without_data_are_skipped_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = {name: PoolSettings(labels=[4, 7]) for name in ("acac", "ammonia_rare")}
    own = SETTINGS.model_copy(update={"pools": both})
    with caplog.at_level("WARNING", logger=cells.__name__):
        cells.log.propagate = True
        assert not list(run_cells(cells_in_order(own), tmp_path, own, tmp_path))
    assert "acac: skipped, there is no folder acac" in (missing("acac", tmp_path) or "")
    with pytest.raises(DataError, match="data_folder in the study's settings"):
        load_pool("acac", tmp_path, ammonia_file(tmp_path))
    with pytest.raises(ConfigError, match="Did you mean 'acac'"):
        missing("acacc", tmp_path)


# --- the pools of the study -------------------------------------------------------------------------


def test_a_test_structure_in_the_pool_is_refused(pool: LabelledPool) -> None:
    with pytest.raises(DataError, match="2 structures of 'x' are in its pool and in its test"):
        LabelledPool("x", pool.structures, pool.initial, pool.structures[:2], np.zeros(2, bool), "none")


@pytest.mark.parametrize(
    ("name", "n_pool", "n_initial", "n_test"),
    [("acac", 1000, 500, 650), ("3bpa", 667, 500, 166), ("rmd17_ethanol", 2000, 2000, 400)],
)
def test_no_test_frame_of_a_file_pool_can_be_selected(name: str, n_pool: int, n_initial: int, n_test: int) -> None:
    reason = missing(name, DATA)
    if reason is not None:
        pytest.skip(reason)
    assert name in FROM_FILES
    found = load_pool(name, DATA, DATA / "none")
    assert not set(found.structures.ids) & set(found.test.ids)
    assert len(found.structures) == len(set(found.structures.ids)) == n_pool
    assert (len(found.initial), len(found.test)) == (n_initial, n_test)
    # In eV/Å whatever the file's unit: thermal forces are about 1 eV/Å.
    assert 0.5 < np.sqrt(np.mean(found.structures.forces**2)) < 3
    again = load_pool(name, DATA, DATA / "none")
    assert again.test.ids == found.test.ids
    assert found.is_hard.any()
    assert not found.is_hard.all()
