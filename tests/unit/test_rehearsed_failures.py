"""Failures made on purpose: which structures fail, what it changes, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.config import Config, parse_config
from dubito.config.labelling import PyscfConfig, TeacherConfig
from dubito.core.hashing import hash_json
from dubito.data.structures import Structures
from dubito.labelling.base import Label
from dubito.labelling.cache import Failure, LabelCache
from dubito.labelling.service import label_structures
from dubito.labelling.teacher import TeacherLabeller, without_rehearsed_failures
from dubito.testing.structures import rattled
from dubito.workflow.recorded import labeller_settings, reported_settings

MANY = rattled(400, molecules="ammonia", displacement=0.03)


class Counting(TeacherLabeller):
    """A teacher that fails for a share, and counts its labels."""

    def __init__(self, share: float = 0.0) -> None:
        super().__init__(TeacherConfig(kind="teacher", failing_fraction=share))
        self.calls: list[str] = []

    def label(self, structure: Structures) -> Label:
        self.calls.append(structure.ids[0])
        return super().label(structure)


def failing(share: float, structures: Structures = MANY) -> set[str]:
    _, report = label_structures(structures, Counting(share), None)
    assert {one["reason"] for one in report["failed"]} <= {"scf_not_converged"}
    return {one["id"] for one in report["failed"]}


def test_the_share_is_that_of_the_structures_whatever_their_order() -> None:
    third, most = failing(0.3), failing(0.9)
    assert 0.22 < len(third) / len(MANY) < 0.38
    assert 0.85 < len(most) / len(MANY) < 0.95
    assert third < most, "a smaller share fails some of the same"
    assert failing(0.3, MANY[np.arange(len(MANY))[::-1]]) == third
    assert failing(0.0) == set()
    assert failing(1.0) == set(MANY.ids)


def test_the_other_labels_are_those_of_a_sound_teacher() -> None:
    few = MANY[:40]
    sound, broken = Counting(), Counting(0.5)
    assert sound.settings_hash == broken.settings_hash
    assert sound.effort() == {}, "as before there were failures to rehearse: what is remembered stands"
    expected, _ = label_structures(few, sound, None)
    found, _ = label_structures(few, broken, None)
    rows = found.is_labelled
    assert 0 < rows.sum() < 40
    np.testing.assert_array_equal(found[rows].energy, expected[rows].energy)
    np.testing.assert_array_equal(found[rows].forces, expected[rows].forces)


def test_a_lower_share_brings_failures_back_and_makes_no_label_twice(tmp_path: Path) -> None:
    few = MANY[:40]
    cache = LabelCache(tmp_path, Counting().settings())
    label_structures(few, Counting(0.9), cache)
    again = Counting(0.9)
    label_structures(few, again, cache)
    assert again.calls == [], "the same share fails the same: remembered"
    lower = Counting(0.3)
    label_structures(few, lower, cache)
    assert set(lower.calls) == failing(0.9, few)
    higher = Counting(0.9)
    _, report = label_structures(few, higher, cache)
    assert set(higher.calls) == failing(0.3, few), "labels stay labels, under a higher share as well"
    assert report["done"] == 40 - len(failing(0.3, few))


def test_a_reopened_failure_is_tried_again_and_a_label_is_left(tmp_path: Path) -> None:
    labeller = Counting()
    cache = LabelCache(tmp_path, labeller.settings())
    label_structures(MANY[:1], labeller, cache)
    before = cache.path(MANY.ids[0]).read_bytes()
    failure = Failure("net_force", "0.3 eV/Å", attempts=2, effort=hash_json(labeller.effort()))
    cache.put(MANY.ids[1], failure)
    assert [cache.reopen(name) for name in MANY.ids[:3]] == [False, True, False]
    assert cache.path(MANY.ids[0]).read_bytes() == before
    assert cache.get(MANY.ids[2]) is None
    kept = cache.get(MANY.ids[1])
    assert isinstance(kept, Failure)
    assert (kept.reason, kept.attempts) == ("net_force", 2)
    labeller.calls.clear()
    _, report = label_structures(MANY[:2], labeller, cache)
    assert labeller.calls == [MANY.ids[1]]
    assert report["failed"] == []


def test_profiles_are_spared() -> None:
    config = TeacherConfig(kind="teacher", failing_fraction=1.0, seconds_per_label=0.0)
    assert without_rehearsed_failures(config) == config.model_copy(update={"failing_fraction": 0.0})
    dft = PyscfConfig()
    assert without_rehearsed_failures(dft) is dft


# --- what Snakemake records ---------------------------------------------------------------------


def config(**labelling: Any) -> Config:
    return parse_config({"labelling": {"labeller": {"kind": "teacher"}, **labelling}})


def test_campaigns_of_before_recorded_the_same() -> None:
    """Another recorded value makes all finished campaigns label, or report, everything again."""
    plain = config()
    assert labeller_settings(plain) == {
        "kind": "teacher",
        "potential": "double_well_ammonia",
        "seconds_per_label": 0.0,
    }
    assert list(reported_settings(plain)["labelling"]) == ["labeller", "structures_per_shard", "max_failed_fraction"]
    assert "failing_fraction" not in reported_settings(plain)["labelling"]["labeller"]
    assert list(labeller_settings(parse_config({}))) == [
        "kind",
        "xc",
        "basis",
        "density_fit",
        "auxbasis",
        "grid_level",
        "conv_tol_hartree",
        "max_cycle",
        "early_abort",
        "max_net_force_ev_per_angstrom",
    ]


def test_what_fails_on_purpose_and_what_is_reused_makes_no_label_again() -> None:
    failing = config(labeller={"kind": "teacher", "failing_fraction": 0.3})
    assert labeller_settings(failing) == labeller_settings(config())
    assert reported_settings(failing)["labelling"]["labeller"]["failing_fraction"] == 0.3
    assert reported_settings(config(reuse_from=["a.h5"])) == reported_settings(config())
    other = config(labeller={"kind": "teacher", "potential": "morse"})
    assert labeller_settings(other) != labeller_settings(config())


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_none_and_all(share: float) -> None:
    with pytest.raises(ValueError, match="failing_fraction"):
        config(labeller={"kind": "teacher", "failing_fraction": share})
