"""The arithmetic of label savings on curves whose answer is known, and the summary of finished campaigns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.core.errors import ConfigError, DataError
from dubito.core.files import write_json
from dubito.core.random import generator
from dubito.studies.label_savings.cells import Cell, cells_in_order, read_cell
from dubito.studies.label_savings.savings import error_at, labels_at, saving
from dubito.studies.label_savings.settings import StudySettings, load_settings
from dubito.studies.label_savings.summary import goals, summarise

ROOT = Path(__file__).parents[2]
LABELS = np.array([10, 15, 22, 33, 50])
OPTIONS: dict[str, Any] = {"target_share": 0.7, "level": 0.95, "n_resamples": 400, "seed": 0}


def power(labels: Any, worth: float = 1.0) -> Any:
    """Return the errors of a campaign each of whose labels is worth that many of random's."""
    return 300.0 * (np.asarray(labels, "f8") * worth) ** -0.4


@pytest.mark.parametrize("worth", [0.8, 1.0, 1.7, 2.5])
def test_a_power_law_gives_the_planted_saving_exactly(worth: float) -> None:
    random, selector = power(LABELS)[None], power(LABELS, worth)[None]
    found = saving(LABELS, random, selector, **OPTIONS)
    assert found.bound == "exact"
    assert found.ratio == pytest.approx(worth)
    assert found.labels_random == pytest.approx(10 + 0.7 * 40)
    assert found.target == pytest.approx(power(38.0))
    assert np.isnan(found.low)  # one seed has no interval


def test_campaigns_that_differ_by_seed_but_not_from_each_other_have_a_saving_of_one() -> None:
    level = np.array([0.8, 1.0, 1.3, 0.9, 1.1])[:, None]
    random = level * power(LABELS)
    found = saving(LABELS, random, random.copy(), **OPTIONS)
    assert (found.ratio, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_pairs_with_the_same_factor_leave_no_doubt_however_much_seeds_differ() -> None:
    """What pairing is for: seeds that are all hard or all easy, for both."""
    level = np.array([0.5, 1.0, 2.0, 0.7, 1.4])[:, None]
    found = saving(LABELS, level * power(LABELS), level * power(LABELS, 2.0), **OPTIONS)
    assert (found.ratio, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_a_selector_that_never_gets_there_is_a_bound() -> None:
    flat = np.full((5, 5), 1e3)
    flat[:, 0] = power(10)
    found = saving(LABELS, np.tile(power(LABELS), (5, 1)), np.maximum(flat, power(10)), **OPTIONS)
    assert found.bound == "at_most"
    assert found.ratio == pytest.approx(38 / 50)
    assert found.labels_selector == pytest.approx(50)
    assert found.censored_share == 1.0


def test_a_selector_that_starts_at_the_target_is_a_bound_the_other_way() -> None:
    found = saving(LABELS, power(LABELS)[None], power(LABELS, 6.0)[None], **OPTIONS)
    assert found.bound == "at_least"
    assert found.ratio == pytest.approx(38 / 10)


def test_a_curve_that_rises_again_counts_where_it_first_got_there() -> None:
    needed, bound = labels_at([10, 20, 40, 80], np.array([[8.0, 4.0, 16.0, 2.0]]), np.array([5.0]))
    # From 8 to 4 in one octave of labels: 5 is log2(8 / 5) octaves away.
    assert needed[0] == pytest.approx(10 * 2 ** np.log2(8 / 5))
    assert bound[0] == 0
    assert error_at([10, 20, 40, 80], np.array([8.0, 4.0, 16.0, 2.0]), 40) == pytest.approx(4.0)


def test_the_interval_covers_the_planted_saving() -> None:
    """Five noisy pairs, 150 times: the expanded percentiles cover about 95 %, which plain ones would not."""
    rng, worth, covered, n = generator(0, "coverage"), 1.6, 0, 150
    for _ in range(n):
        level = np.exp(0.2 * rng.normal(size=(5, 1)))  # shared by a pair
        noise = np.exp(0.08 * rng.normal(size=(2, 5, 5)))
        one, other = (level * power(LABELS, w) * noise[i] for i, w in enumerate((1.0, worth)))
        found = saving(LABELS, one, other, **OPTIONS)
        covered += found.low <= worth <= found.high
    assert covered / n >= 0.9


def test_more_seeds_give_a_narrower_interval() -> None:
    rng = generator(1, "width")

    def width(n: int) -> float:
        noise = np.exp(0.1 * rng.normal(size=(2, n, 5)))
        found = saving(LABELS, power(LABELS) * noise[0], power(LABELS, 1.5) * noise[1], **OPTIONS)
        return found.high - found.low

    assert width(40) < 0.6 * width(5)


@pytest.mark.parametrize(
    ("random", "selector", "what"),
    [
        (np.ones((2, 5)), np.ones((3, 5)), "can't be compared"),
        (np.ones((2, 4)), np.ones((2, 4)), "can't be compared"),
        (np.ones((2, 5)), np.full((2, 5), np.nan), "not a positive number"),
    ],
)
def test_curves_that_do_not_fit_are_refused(random: Any, selector: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        saving(LABELS, random, selector, **OPTIONS)


# --- settings and summary ---------------------------------------------------------------------------


def settings(**more: Any) -> StudySettings:
    values = {"selectors": ["lcmd"], "n_seeds": 3, "n_resamples": 100, "pools": {"acac": {"labels": LABELS.tolist()}}}
    return StudySettings.model_validate(values | more)


def put(folder: Path, cell: Cell, own: StudySettings, errors: Any, **more: Any) -> None:
    """Write a finished campaign."""
    keys = ("force_rmse_mev_per_angstrom", "hard_force_rmse_mev_per_angstrom", "energy_rmse_mev", "energy_spread_mev")
    curve = [{"labels": int(n)} | dict.fromkeys(keys, float(e)) for n, e in zip(LABELS, errors, strict=True)]
    content = {
        "pool": cell.pool, "selector": cell.selector, "seed": cell.seed, "key": own.cell_key(cell.pool),
        "initial": f"start {cell.seed}", "n_pool": 100, "n_test": 10, "hard": "some", "curve": curve, "picks": [],
        "cpu_s": 1.0,
    }  # fmt: skip
    write_json(cell.path(folder), content | more)


def test_the_summary_compares_the_seeds_that_both_have(tmp_path: Path) -> None:
    own = settings()
    for seed in (0, 1):
        put(tmp_path, Cell("acac", "random", seed), own, power(LABELS))
    for seed in (1, 2):
        put(tmp_path, Cell("acac", "lcmd", seed), own, power(LABELS, 2.0))
    found = summarise(tmp_path, own)
    one = found["savings"]["acac.lcmd"]
    assert one["seeds"] == [1]
    assert one["ratio"] == pytest.approx(2.0)
    assert one["energy_without_offset"]["ratio"] == pytest.approx(2.0)
    assert (found["finished_cells"], found["cells"], found["is_complete"]) == (4, 6, False)
    assert found["goals"]["acac"]["met"] is True


def test_cells_of_other_settings_do_not_count(tmp_path: Path) -> None:
    own = settings()
    put(tmp_path, Cell("acac", "random", 0), settings(n_steps=3), power(LABELS))
    assert read_cell(Cell("acac", "random", 0), tmp_path, own) is None
    with pytest.raises(DataError, match="no finished campaigns"):
        summarise(tmp_path, own)


def test_what_is_only_reported_otherwise_keeps_the_cells() -> None:
    one, other = settings(), settings(level=0.9, n_seeds=7, target_share=0.5, selectors=["max_det"])
    assert one.cell_key("acac") == other.cell_key("acac")
    assert one.cell_key("acac") != settings(batch_size=7).cell_key("acac")
    assert one.cell_key("acac") != settings(model={"n_features": 8}).cell_key("acac")
    # Frames and labels of ammonia matter to its own pool alone.
    pools = {name: {"labels": [2, 3]} for name in ("acac", "ammonia_rare")}
    cold = settings(pools=pools, ammonia={"temperature_K": 200.0})
    assert cold.cell_key("acac") == settings(pools=pools).cell_key("acac")
    assert cold.cell_key("ammonia_rare") != settings(pools=pools).cell_key("ammonia_rare")
    coarse = settings(pools=pools, ammonia={"labeller": {"kind": "pyscf", "grid_level": 2}})
    assert coarse.cell_key("ammonia_rare") != settings(pools=pools).cell_key("ammonia_rare")


def test_campaigns_that_did_not_start_alike_are_not_compared(tmp_path: Path) -> None:
    own = settings()
    put(tmp_path, Cell("acac", "random", 0), own, power(LABELS))
    put(tmp_path, Cell("acac", "lcmd", 0), own, power(LABELS), initial="another")
    with pytest.raises(DataError, match="started from other labels"):
        summarise(tmp_path, own)


def test_random_and_the_first_selectors_of_all_pools_come_first() -> None:
    pools = {name: {"labels": [2, 3]} for name in ("acac", "3bpa")}
    order = cells_in_order(settings(selectors=["lcmd", "max_det", "farthest_point"], pools=pools, n_seeds=2))
    assert order[:3] == [Cell("acac", "random", 0), Cell("acac", "lcmd", 0), Cell("acac", "max_det", 0)]
    assert {cell.selector for cell in order[:12]} == {"random", "lcmd", "max_det"}
    assert len(set(order)) == len(order) == 16


def test_goals_name_the_best_and_do_not_hide_a_miss() -> None:
    one: Any = {"ratio": 1.4, "low": 1.2}
    found = goals({"acac.lcmd": one, "acac.max_det": one | {"ratio": 0.8, "low": 0.7}})
    assert found == {
        "acac": {"asked": 1.5, "best": "lcmd", "ratio": 1.4, "low": 1.2, "met": False, "met_at_the_lower_end": False}
    }


def test_the_settings_of_the_repository_are_valid() -> None:
    found = load_settings(ROOT / "config" / "studies" / "label_savings.yaml")
    assert found.n_seeds >= 5
    assert set(found.pools) == {"acac", "3bpa", "ammonia_rare", "rmd17_ethanol", "rmd17_aspirin"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("selectors: [lcmd]\npools: {acac: {labels: [5, 5]}}\n", "increasing numbers of labels"),
        ("selectors: [lcmd]\n", "pools: Field required"),
        ("selectors: [lcmd\n", "not valid YAML"),
    ],
)
def test_wrong_settings_are_one_message(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=what):
        load_settings(file)
    with pytest.raises(ConfigError, match="can't be read"):
        load_settings(tmp_path / "missing.yaml")
