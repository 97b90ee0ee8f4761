"""Splits: fixed for ever, without leakage, with duplicates dropped and counted."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.core.errors import DataError
from dubito.data.splits import TRAIN, VALID, assign_splits, drop_duplicates, group_labels
from dubito.data.structures import Structures
from dubito.testing.structures import rattled

NAMES = st.sampled_from(["", "", "a", "b", "c", "d"])


def dimers(
    distances: list[float], trajectories: list[str] | None = None, splits: list[str] | None = None
) -> Structures:
    """Return one N2 per distance: equal distances are equal structures."""
    out = Structures.build([[7, 7]] * len(distances), [[[0, 0, 0], [0, 0, d]] for d in distances])
    if trajectories is not None:
        out = out.with_columns(origin__trajectory=trajectories)
    return out if splits is None else out.with_columns(origin__split=splits)


def assigned(structures: Structures, fraction: float = 0.2, seed: int = 0, iteration: int = 0) -> list[str]:
    return assign_splits(structures, fraction=fraction, seed=seed, iteration=iteration).text("origin/split")


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), NAMES), min_size=1, max_size=30),
    st.floats(0.01, 0.85),
    st.integers(0, 10),
)
def test_nothing_leaks(rows: list[tuple[int, str]], fraction: float, seed: int) -> None:
    structures = dimers([1 + 0.1 * d for d, _ in rows], [t for _, t in rows])
    split = assigned(structures, fraction, seed)
    assert set(split) <= {"train", "valid"}
    assert "train" in split
    by_id: dict[str, set[str]] = {}
    for name, side in zip(structures.ids, split, strict=True):
        by_id.setdefault(name, set()).add(side)
    assert all(len(sides) == 1 for sides in by_id.values())
    groups = group_labels([t for _, t in rows], structures.ids)
    if len(set(groups)) > 1:
        assert "valid" in split
        for group in set(groups):
            assert len({side for side, g in zip(split, groups, strict=True) if g == group}) == 1
    elif len(by_id) > 1:
        assert "valid" in split


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), NAMES), min_size=2, max_size=20),
    st.lists(st.tuples(st.integers(1, 30), NAMES), min_size=1, max_size=20),
    st.integers(0, 5),
)
def test_old_splits_never_change_and_bind_new_ones(
    old: list[tuple[int, str]], new: list[tuple[int, str]], seed: int
) -> None:
    first = dimers([1 + 0.1 * d for d, _ in old], [t for _, t in old])
    before = assigned(first, 0.3, seed)
    both = Structures.concatenate(
        [first.with_columns(origin__split=before), dimers([1 + 0.1 * d for d, _ in new], [t for _, t in new])]
    )
    after = assigned(both, 0.3, seed, iteration=1)
    assert after[: len(old)] == before
    sides: dict[str, set[str]] = {}
    for name, side in zip(both.ids, after, strict=True):
        sides.setdefault(name, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    # A trajectory wholly on one side stays there.
    for trajectory in set(both.text("origin/trajectory")) - {""}:
        rows = [i for i, t in enumerate(both.text("origin/trajectory")) if t == trajectory]
        earlier = {after[i] for i in rows if i < len(old)}
        linked = group_labels(both.text("origin/trajectory"), both.ids)
        if (
            len(earlier) == 1
            and len({after[i] for i in np.flatnonzero(linked == linked[rows[0]]) if i < len(old)}) == 1
        ):
            assert {after[i] for i in rows} == earlier


def test_order_does_not_matter() -> None:
    distances, trajectories = list(np.linspace(1, 2, 40)), [f"t{i % 13}" for i in range(40)]
    forwards = assigned(dimers(distances, trajectories))
    backwards = assigned(dimers(distances[::-1], trajectories[::-1]))
    assert forwards == backwards[::-1]


def test_seed_matters_and_is_all_that_matters() -> None:
    structures = dimers(list(np.linspace(1, 2, 60)))
    assert assigned(structures, seed=1) == assigned(structures, seed=1)
    assert assigned(structures, seed=1) != assigned(structures, seed=2)


def test_share_is_kept_over_many_small_batches() -> None:
    joined = Structures.empty()
    for iteration in range(20):
        batch = dimers([1 + 0.01 * (5 * iteration + i) for i in range(5)])
        joined = assign_splits(
            Structures.concatenate([joined, batch.with_columns(origin__split="")]),
            fraction=0.15,
            seed=3,
            iteration=iteration,
        )
    assert abs(joined.text("origin/split").count("valid") - 15) <= 1


def test_control_is_left_alone_and_binds_nobody() -> None:
    structures = dimers(
        list(np.linspace(1, 2, 12)), ["t"] * 6 + [f"u{i}" for i in range(6)], ["control"] * 2 + [""] * 10
    )
    split = assigned(structures)
    assert split[:2] == ["control"] * 2
    assert "control" not in split[2:]


def test_released_control_joins_its_trajectory() -> None:
    structures = dimers([1.0, 1.1, 1.2, 1.3], ["t", "t", "u", "v"], ["train", "", "valid", "train"])
    assert assigned(structures, fraction=0.8) == ["train", "train", "valid", "train"]


def test_two_structures_give_one_of_each() -> None:
    assert sorted(assigned(dimers([1.0, 1.1]), fraction=0.01)) == ["train", "valid"]
    assert sorted(assigned(dimers([1.0, 1.1]), fraction=0.89)) == ["train", "valid"]
    assert assigned(dimers([1.0])) == ["train"]


def test_one_trajectory_is_cut_at_its_end_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dubito"):
        logging.getLogger("dubito").propagate = True
        split = assigned(dimers(list(np.linspace(1, 2, 10)), ["md"] * 10))
    assert split == ["train"] * 8 + ["valid"] * 2
    assert "one trajectory" in caplog.text


def test_duplicates_are_dropped_and_counted() -> None:
    kept, dropped = drop_duplicates(dimers([1.0, 1.1, 1.0, 1.2, 1.1, 1.0]))
    assert dropped == 3
    np.testing.assert_allclose(kept.positions[1::2, 2], [1.0, 1.1, 1.2])


def test_charge_makes_another_structure() -> None:
    two = Structures.build([[7, 7]] * 2, [[[0, 0, 0], [0, 0, 1.1]]] * 2, charge=[0, 1], multiplicity=[1, 2])
    assert drop_duplicates(two)[1] == 0


def test_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="origin/split holds 'test'"):
        assigned(dimers([1.0, 1.1], splits=["test", ""]))


def test_an_element_is_trained_on_before_it_is_validated_on() -> None:
    common, rare = rattled(9, molecules="ammonia"), rattled(2, seed=3)[1]
    structures = Structures.concatenate([common, rare])
    for seed in range(40):
        split = assign_splits(structures, fraction=0.3, seed=seed, iteration=0).text("origin/split")
        assert split[-1] == TRAIN
        assert VALID in split
