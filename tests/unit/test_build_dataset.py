"""The dataset of an iteration: what enters, what is refused, and who is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.config.data import DataConfig
from dubito.core.errors import CampaignPaused, DataError
from dubito.core.files import write_json
from dubito.data.store import read_structures, write_structures
from dubito.data.structures import MODEL, Structures
from dubito.stages import build_dataset
from dubito.testing.structures import rattled, toy_labels


def labels(n: int, seed: int, *, reason: str | list[str] = "uncertainty", **columns: Any) -> Structures:
    """Return labelled structures as a shard holds them, each of a trajectory of its own."""
    out = toy_labels(rattled(n, seed=seed)).with_columns(
        origin__reason=reason,
        provenance__settings_hash="aaaa",
        provenance__method="pyscf PBE/def2-svp",
        origin__trajectory=[f"t{seed}_{i}" for i in range(n)],
    )
    return out.with_columns(**columns)


def build(
    folder: Path, shards: list[Structures], previous: Path | None = None, iteration: int = 0, **data: Any
) -> tuple[Structures, str]:
    paths = [folder / f"shard_{iteration}_{i}.h5" for i in range(len(shards))]
    for path, part in zip(paths, shards, strict=True):
        write_structures(path, part)
    output, manifest = folder / f"dataset_{iteration}.h5", folder / f"selection_{iteration}.json"
    write_json(manifest, {"ids": [name for part in shards for name in part.ids]})
    line = build_dataset.run(
        previous=previous,
        manifest=manifest,
        shards=paths,
        output=output,
        data=DataConfig(**data),
        seed=1,
        iteration=iteration,
    )
    assert "\n" not in line
    return read_structures(output), line


def sides(structures: Structures) -> dict[str, str]:
    return dict(zip(structures.ids, structures.text("origin/split"), strict=True))


def test_labels_survive_untouched(tmp_path: Path) -> None:
    shards = [labels(5, 1, reason="initial"), labels(6, 2, reason="initial")]
    data, line = build(tmp_path, shards)
    given = Structures.concatenate(shards)
    assert data.ids == given.ids
    np.testing.assert_array_equal(data.energy, given.energy)
    np.testing.assert_array_equal(data.forces, given.forces)
    assert data.text("provenance/settings_hash") == ["aaaa"] * 11
    assert line == "11 labels (11 new): 9 train, 2 valid"


def test_splits_are_for_ever_and_control_waits_one_iteration(tmp_path: Path) -> None:
    first, _ = build(tmp_path, [labels(10, 1, reason="initial")])
    second, line = build(
        tmp_path, [labels(8, 2, reason=["control"] * 3 + ["uncertainty"] * 5)], tmp_path / "dataset_0.h5", 1
    )
    assert line == "18 labels (8 new): 13 train, 2 valid, 3 control"
    assert second[10:].text("origin/split")[:3] == ["control"] * 3
    third, _ = build(
        tmp_path, [labels(8, 3, reason=["control"] * 3 + ["uncertainty"] * 5)], tmp_path / "dataset_1.h5", 2
    )
    control = {name for name, side in sides(second).items() if side == "control"}
    for old, new in ((first, second), (second, third)):
        for name, side in sides(old).items():
            assert sides(new)[name] == side or name in control
    assert {sides(third)[name] for name in control} <= {"train", "valid"}
    assert third.text("origin/split").count("control") == 3


def test_order_of_shards_does_not_matter_for_splits(tmp_path: Path) -> None:
    shards = [labels(5, 1), labels(6, 2), labels(4, 3)]
    forwards, _ = build(tmp_path, shards)
    (tmp_path / "b").mkdir()
    backwards, _ = build(tmp_path / "b", shards[::-1])
    assert sides(forwards) == sides(backwards)


def test_failed_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    part = labels(8, 1)
    energy, mask = part.energy.copy(), np.ones(8, bool)
    energy[[2, 5]], mask[[2, 5]] = np.nan, False
    data, line = build(tmp_path, [part.with_columns(labels__energy=energy, labels__mask=mask)])
    assert len(data) == 6
    assert not set(part[[2, 5]].ids) & set(data.ids)
    assert line.endswith("2 failed labels left out")


def test_a_label_that_is_not_a_number_can_not_enter(tmp_path: Path) -> None:
    part = labels(4, 1)
    forces = part.forces.copy()
    forces[3, 1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        build(tmp_path, [part.with_columns(labels__forces=forces)])


def test_exact_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    build(tmp_path, [labels(6, 1)])
    data, line = build(tmp_path, [labels(6, 1)[:2], labels(4, 2)], tmp_path / "dataset_0.h5", 1)
    assert len(data) == 10
    assert len(set(data.ids)) == 10
    assert line.endswith("2 duplicates left out")


def test_another_level_of_theory_is_refused(tmp_path: Path) -> None:
    build(tmp_path, [labels(6, 1)])
    other = labels(3, 2, provenance__settings_hash="bbbb", provenance__method="pyscf B3LYP/def2-svp")
    with pytest.raises(DataError, match="Another level of theory is other physics") as error:
        build(tmp_path, [other], tmp_path / "dataset_0.h5", 1)
    assert "6 by 'pyscf PBE/def2-svp' (settings aaaa); 3 by 'pyscf B3LYP/def2-svp' (settings bbbb)" in str(error.value)
    assert not (tmp_path / "dataset_1.h5").exists()
    with pytest.raises(DataError, match="other physics"):
        build(tmp_path, [labels(3, 3), other])


def test_labels_made_by_a_model_need_leave(tmp_path: Path) -> None:
    made = labels(3, 2, provenance__kind=MODEL, provenance__settings_hash="cccc", provenance__method="teacher")
    with pytest.raises(DataError, match=r"3 of 9 labels.*allow_model_labels"):
        build(tmp_path, [labels(6, 1), made])
    data, _ = build(tmp_path, [labels(6, 1), made], allow_model_labels=True)
    assert data.text("provenance/kind").count(MODEL) == 3


def test_no_new_labels_keep_the_old_dataset(tmp_path: Path) -> None:
    first, _ = build(tmp_path, [labels(6, 1)])
    second, line = build(tmp_path, [], tmp_path / "dataset_0.h5", 1)
    assert sides(first) == sides(second)
    assert "(0 new)" in line


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_labels_to_train_and_validate(tmp_path: Path, n: int) -> None:
    """No fault of the data: the campaign pauses, and says what to do."""
    part = labels(4, 1)
    with pytest.raises(CampaignPaused, match=rf"^{4 - n} of the 4 structures.* leaves {n} label") as pause:
        build(tmp_path, [part.with_columns(labels__mask=np.arange(4) < n)])
    assert "`dubito retry`" in str(pause.value)
    assert (pause.value.iteration, pause.value.labels) == (0, {"done": n, "failed": 4 - n, "reused": 0})


def test_a_pause_counts_the_reasons(tmp_path: Path) -> None:
    failed = [{"id": "x", "reason": r, "message": m} for r, m in (("crashed", "Boom."), ("net_force", "Off."))]
    write_json(tmp_path / "shard_0_0.json", {"done": 0, "failed": failed, "reused": 0})
    with pytest.raises(CampaignPaused, match=r"\(crashed 1, net_force 1\).*; the first: Boom\. Mend"):
        build(tmp_path, [labels(2, 1).with_columns(labels__mask=False)])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_shard_is_named_and_gives_no_label(tmp_path: Path, share: float) -> None:
    """What was cut off is never read as fewer, or other, labels."""
    build(tmp_path, [labels(40, 1), labels(3, 2)])
    path = tmp_path / "shard_0_0.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="shard_0_0"):
        build_dataset.run(
            previous=None,
            manifest=tmp_path / "selection_0.json",
            shards=[path, tmp_path / "shard_0_1.h5"],
            output=tmp_path / "again.h5",
            data=DataConfig(),
            seed=1,
            iteration=0,
        )
    assert not (tmp_path / "again.h5").exists()


def test_a_lost_shard_is_noticed(tmp_path: Path) -> None:
    part = labels(5, 1, reason="initial")
    write_structures(tmp_path / "shard.h5", part[:4])
    write_json(tmp_path / "selection.json", {"ids": part.ids})
    with pytest.raises(DataError, match="5 selected structures, the shards hold 4"):
        build_dataset.run(
            previous=None,
            manifest=tmp_path / "selection.json",
            shards=[tmp_path / "shard.h5"],
            output=tmp_path / "dataset.h5",
            data=DataConfig(),
            seed=1,
            iteration=0,
        )
