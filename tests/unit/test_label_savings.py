"""The arithmetic of label savings on curves whose answer is known, and the summary of finished campaigns."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.core.errors import ConfigError, DataError
from dubito.core.files import read_json, write_json
from dubito.core.random import generator
from dubito.studies.label_savings.cells import Cell, cells_in_order, is_finished, possible_cells, read_cell
from dubito.studies.label_savings.goals import goals
from dubito.studies.label_savings.savings import error_at, labels_at, saving
from dubito.studies.label_savings.settings import STUDY_VERSION, StudySettings, load_settings
from dubito.studies.label_savings.summary import summarise

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
    assert np.isnan([found.low, found.t_low]).all()


def test_campaigns_that_differ_by_seed_but_not_from_each_other_have_a_saving_of_one() -> None:
    level = np.array([0.8, 1.0, 1.3, 0.9, 1.1])[:, None]
    random = level * power(LABELS)
    found = saving(LABELS, random, random.copy(), **OPTIONS)
    assert (found.ratio, found.low, found.high, found.t_low, found.t_high) == pytest.approx((1.0,) * 5)


def test_pairs_with_the_same_factor_leave_no_doubt_however_much_seeds_differ() -> None:
    """What pairing is for: seeds that are all hard or all easy, for both."""
    level = np.array([0.5, 1.0, 2.0, 0.7, 1.4])[:, None]
    found = saving(LABELS, level * power(LABELS), level * power(LABELS, 2.0), **OPTIONS)
    assert (found.ratio, found.low, found.high, found.t_low, found.t_high) == pytest.approx((2.0,) * 5)


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


def test_five_seeds_the_paired_t_interval_covers_and_the_bootstrap_does_less() -> None:
    """Noisy pairs, 400 times: of intervals of 95 %, benchmarks/savings_coverage.py has 95 and 92 % of 1000."""
    rng, worth, n = generator(0, "coverage"), 1.6, 400
    covered = np.zeros(2)
    for _ in range(n):
        level = np.exp(0.2 * rng.normal(size=(5, 1)))  # shared by a pair
        noise = np.exp(0.08 * rng.normal(size=(2, 5, 5)))
        one, other = (level * power(LABELS, w) * noise[i] for i, w in enumerate((1.0, worth)))
        found = saving(LABELS, one, other, **OPTIONS)
        covered += [found.low <= worth <= found.high, found.t_low <= worth <= found.t_high]
    bootstrap, paired_t = covered / n
    assert 0.93 <= paired_t <= 0.975
    assert 0.86 <= bootstrap < paired_t


@pytest.mark.parametrize(("n", "has_one"), [(3, False), (4, False), (5, True)])
def test_few_seeds_have_no_interval_and_say_why(n: int, has_one: bool) -> None:
    noise = np.exp(0.1 * generator(2, "few").normal(size=(2, n, 5)))
    found = saving(LABELS, power(LABELS) * noise[0], power(LABELS, 1.5) * noise[1], **OPTIONS)
    assert np.isfinite([found.low, found.high, found.t_low, found.t_high]).tolist() == [has_one] * 4
    assert found.why_no_interval == ("" if has_one else f"too few seeds: {n}, expected at least 5")
    assert found.ratio > 1


def test_the_paired_t_interval_is_that_of_the_log_ratios_of_pairs() -> None:
    """Pairs whose own savings are known: closed form."""
    worth = np.array([1.2, 1.5, 1.9, 1.4, 1.6])
    level = np.array([0.5, 1.0, 2.0, 0.7, 1.4])[:, None]
    selector = level * np.array([power(LABELS, w) for w in worth])
    found = saving(LABELS, level * power(LABELS), selector, **OPTIONS)
    logs = np.log(worth)
    half = 2.7764451 * logs.std(ddof=1) / np.sqrt(5)
    assert (found.t_low, found.t_high) == pytest.approx((np.exp(logs.mean() - half), np.exp(logs.mean() + half)))
    assert found.pairs_ratio == pytest.approx(np.exp(logs.mean()))
    assert found.n_bounded == 0


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
    # The arithmetic is tested, not the data.
    values["data_folder"] = "nowhere"
    return StudySettings.model_validate(values | more)


def put(folder: Path, cell: Cell, own: StudySettings, errors: Any, **more: Any) -> None:
    """Write a finished campaign."""
    keys = ("force_rmse_mev_per_angstrom", "hard_force_rmse_mev_per_angstrom", "energy_rmse_mev", "energy_spread_mev")
    curve = [{"labels": int(n)} | dict.fromkeys(keys, float(e)) for n, e in zip(LABELS, errors, strict=True)]
    content = {
        "pool": cell.pool, "selector": cell.selector, "seed": cell.seed, "key": own.cell_key(cell.pool),
        "data": "of today", "version": STUDY_VERSION,
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
    assert (one["low"], one["t_low"]) == (None, None)
    assert one["why_no_interval"].startswith("too few seeds: 1")
    # One seed of three is no answer.
    assert found["goals"]["best"] is None
    assert found["goals"]["saves"]["acac"]["met"] is None


def test_cells_of_other_data_or_version_or_of_none_do_not_count(tmp_path: Path) -> None:
    own, cell = settings(), Cell("acac", "random", 0)
    put(tmp_path, cell, own, power(LABELS))
    assert is_finished(cell, tmp_path, own)
    assert is_finished(cell, tmp_path, own, "of today")
    assert not is_finished(cell, tmp_path, own, "of yesterday")
    put(tmp_path, cell, own, power(LABELS), version=STUDY_VERSION + 1)
    assert not is_finished(cell, tmp_path, own)
    unstamped(tmp_path, cell)
    assert not is_finished(cell, tmp_path, own)
    with pytest.raises(DataError, match=r"0 finished, 1 with no hash of their data\): .* --stamp"):
        summarise(tmp_path, own)


def unstamped(folder: Path, cell: Cell) -> None:
    """Make the file of a cell one of an older dubito."""
    found = read_json(cell.path(folder))
    write_json(cell.path(folder), {key: value for key, value in found.items() if key not in ("data", "version")})


def test_what_does_not_count_is_counted(tmp_path: Path) -> None:
    own = settings()
    for seed in range(3):
        for name in ("random", "lcmd"):
            put(tmp_path, Cell("acac", name, seed), own, power(LABELS))
    unstamped(tmp_path, Cell("acac", "lcmd", 2))
    put(tmp_path, Cell("acac", "lcmd", 1), own, power(LABELS), version=0)
    found = summarise(tmp_path, own)
    assert found["not_counted"] == {"no hash of their data": 1, "another version of the study": 1}
    assert found["data_not_compared"] == ["acac"]
    assert found["savings"]["acac.lcmd"]["seeds"] == [0]
    # Data that are not here can't be compared with; but cells of two data sets are no pair.
    put(tmp_path, Cell("acac", "lcmd", 1), own, power(LABELS), data="others")
    with pytest.raises(DataError, match="The data have changed in between"):
        summarise(tmp_path, own)


def test_no_campaign_possible_names_the_data_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data folder .*nowhere, which is no folder, holds no pool.*data_folder="):
        possible_cells(settings(), tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="there is no folder acac"):
        possible_cells(settings(), tmp_path)
    (tmp_path / "acac").mkdir()
    assert len(possible_cells(settings(), tmp_path)) == 6


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


def compared(ratio: float, low: float | None = None, high: float | None = None, n: int = 5, **more: Any) -> Any:
    ends = {"low": low, "high": high, "t_low": low, "t_high": high}
    return {"ratio": ratio, "bound": "exact", "n_seeds": n} | ends | more


POOLS = {name: {"labels": [2, 3]} for name in ("acac", "3bpa", "ammonia_rare", "rmd17_ethanol")}
OWN = {"selectors": ["lcmd", "max_det", "farthest_point"], "pools": POOLS, "n_seeds": 5}


def results(**of_lcmd: Any) -> dict[str, Any]:
    """Results of three selectors, the third of which lacks a seed on one pool."""
    out = {}
    for pool in POOLS:
        out[f"{pool}.lcmd"] = of_lcmd.get(pool, compared(1.6, 1.4, 1.8))
        out[f"{pool}.max_det"] = compared(1.7, 1.55, 1.9) if pool == "acac" else compared(1.2, 1.1, 1.3)
        out[f"{pool}.farthest_point"] = compared(9.0, 8.0, 9.9, n=4 if pool == "3bpa" else 5)
    return out


def test_one_selector_with_all_seeds_is_chosen_over_all_pools() -> None:
    found = goals(results(), settings(**OWN))
    # max_det is the best of acac alone, and farthest_point of all, but for a seed.
    assert found["best"] == "lcmd"
    assert found["not_finished"] == ["farthest_point"]
    assert found["mean_ratio_of_the_best"] == pytest.approx(1.6)
    saves = {pool: (one["best"]["ratio"], one["met"], one["met_at_the_lower_end"]) for pool, one in
             found["saves"].items()}  # fmt: skip
    assert saves == {
        "acac": (1.6, True, False), "3bpa": (1.6, True, False), "ammonia_rare": (1.6, False, False),
    }  # fmt: skip
    assert found["no_loss"]["rmd17_ethanol"]["best"]["ratio"] == 1.6


def test_no_loss_fails_when_any_selector_is_shown_to_lose() -> None:
    lose = results(rmd17_ethanol=compared(0.8, 0.7, 0.95))
    one = goals(lose, settings(**OWN))["no_loss"]["rmd17_ethanol"]
    # Others win by far, which doesn't help.
    assert (one["lose"], one["below_one"], one["met"]) == (["lcmd"], ["lcmd"], False)
    perhaps = results(rmd17_ethanol=compared(0.8, 0.6, 1.05))
    one = goals(perhaps, settings(**OWN))["no_loss"]["rmd17_ethanol"]
    assert (one["lose"], one["below_one"], one["met"]) == ([], ["lcmd"], True)


def test_energies_that_lose_are_named() -> None:
    worse = compared(1.2, 1.0, 1.5, energy_without_offset=compared(0.5, 0.3, 0.9))
    one = goals(results(rmd17_ethanol=worse), settings(**OWN))["no_loss"]["rmd17_ethanol"]
    assert (one["lose"], one["met"], one["lose_energy"], one["below_one_energy"]) == ([], True, ["lcmd"], ["lcmd"])


def test_no_loss_is_no_answer_before_all_seeds_are_there() -> None:
    waiting = results(rmd17_ethanol=compared(0.8, n=3))
    one = goals(waiting, settings(**OWN))["no_loss"]["rmd17_ethanol"]
    assert (one["not_finished"], one["below_one"], one["met"]) == (["lcmd"], ["lcmd"], None)
    # One that lost by then has lost.
    waiting["rmd17_ethanol.max_det"] = compared(0.5, 0.4, 0.6)
    assert goals(waiting, settings(**OWN))["no_loss"]["rmd17_ethanol"]["met"] is False


def test_tables_show_how_many_seeds_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    tables = import_module("_savings_tables")
    own = settings(n_seeds=5, selectors=["lcmd", "max_det"])
    for seed in range(5):
        noise = np.exp(0.02 * generator(seed, "noise").normal(size=5))
        put(tmp_path, Cell("acac", "random", seed), own, power(LABELS))
        put(tmp_path, Cell("acac", "lcmd", seed), own, power(LABELS, 0.85) * noise)
        if seed < 3:
            put(tmp_path, Cell("acac", "max_det", seed), own, power(LABELS, 1.9))
    found = summarise(tmp_path, own)
    head, rows = tables.savings(found)
    assert [row[1:3] for row in rows] == [["`lcmd`", "5 of 5"], ["`max_det`", "3 of 5"]]
    assert rows[1][head.index("95 %, paired t")] == rows[1][head.index("95 %, bootstrap")] == "too few seeds"
    assert " to " in rows[0][head.index("95 %, paired t")]
    assert tables.pools(found)[1][0][-1] == "13 of 15"
    assert tables.goals(found)[1][0][2] == "`lcmd`"
    assert tables.goals(found)[1][0][4] == "no"


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
