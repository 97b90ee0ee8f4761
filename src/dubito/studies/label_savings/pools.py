"""The labelled pools: what may be selected, what a campaign starts from, and what it is tested on.

Which frame is in the pool and which in the test is settled here, once and for all; no frame is in both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dubito.core.errors import ConfigError, DataError, unknown_name
from dubito.core.hashing import hash_file, hash_json
from dubito.core.random import generator
from dubito.data.formats import read_any
from dubito.data.splits import drop_duplicates
from dubito.data.store import read_structures
from dubito.data.structures import Array, Structures
from dubito.metrics.reduce import atom_norm, structure_max
from dubito.studies.label_savings.ammonia import POOL_RARE, POOL_THERMAL, TEST_THERMAL, TEST_UNIFORM, height

# Test structures whose largest reference force is above this quantile are the hard part, where nothing better is known.
HARD_QUANTILE = 0.9
# Frames of the official rMD17 test set that are used; they are in random order.
N_RMD17_TEST = 400
# Of train_mixedT_tagged.xyz; the frames at 300 K before them, of which 31 are also in train_300K.xyz, are not used.
FRAMES_600K, FRAMES_1200K = np.arange(167, 334), np.arange(334, 500)
RARE_HEIGHT_ANGSTROM = 0.2


@dataclass(frozen=True)
class LabelledPool:
    """A pool whose labels are known and looked up.

    Attributes
    ----------
    name : of the pool
    structures : all that can be labelled, n structures
    initial : indices of the structures that the initial set is drawn from
    test : structures that are never selected
    is_hard : (n_test,) bool, the hard part of the test
    hard : what makes it hard, in words
    other_test : another test set, reported beside, or None
    """

    name: str
    structures: Structures
    initial: Array
    test: Structures
    is_hard: Array
    hard: str
    other_test: Structures | None = None

    def __post_init__(self) -> None:
        shared = set(self.structures.ids) & {*self.test.ids, *(self.other_test.ids if self.other_test else [])}
        if shared:
            raise DataError(
                f"{len(shared)} structures of '{self.name}' are in its pool and in its test, expected none: the test "
                "would be learnt by heart. Mend how the pool is cut."
            )

    @cached_property
    def data_hash(self) -> str:
        """The hash of all that a campaign sees of the data: ids in their order, labels, what is start and what hard."""
        sets = [self.structures, self.test, *([self.other_test] if self.other_test else [])]
        seen = [[list(one.ids), _digest(one.energy), _digest(one.forces)] for one in sets]
        return hash_json([seen, np.asarray(self.initial).tolist(), np.asarray(self.is_hard).tolist()])


def _digest(values: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").tobytes()).hexdigest()


def _read(folder: Path, name: str) -> Structures:
    return read_any(folder / name, energy_key="REF_energy", forces_key="REF_forces")


def _rmd17(molecule: str) -> Callable[[Path], LabelledPool]:
    """Pool and test from the same distribution (official split 01 and more frames of the same trajectory)."""

    def make(folder: Path) -> LabelledPool:
        parts = [_read(folder, f"rmd17/{molecule}_{part}.xyz.gz") for part in ("train01", "extra_candidates")]
        test = _read(folder, f"rmd17/{molecule}_test01.xyz.gz")[:N_RMD17_TEST]
        pool = _without(Structures.concatenate(parts), test)
        return LabelledPool(f"rmd17_{molecule}", pool, np.arange(len(pool)), test, *_largest_forces(test))

    return make


def _acac(folder: Path) -> LabelledPool:
    """Starts at 300 K, may select 300 and 600 K, is tested at 600 K."""
    cold, hot = (_read(folder, f"acac/train_{t}K.xyz.gz") for t in (300, 600))
    test = _read(folder, "acac/test_MD_600K.xyz.gz")
    cold, hot = _without(cold, test), _without(hot, test)
    pool = Structures.concatenate([cold, hot])
    return LabelledPool("acac", pool, np.arange(len(cold)), test, *_largest_forces(test))


def _3bpa(folder: Path) -> LabelledPool:
    """Starts at 300 K, may select 300 K and half of 600 and 1200 K, is tested on the other half."""
    cold, mixed = _read(folder, "3bpa/train_300K.xyz.gz"), _read(folder, "3bpa/train_mixedT_tagged.xyz.gz")
    sides: list[list[Array]] = [[], []]
    for frames in (FRAMES_600K, FRAMES_1200K):
        drawn = generator(0, "label_savings", "3bpa", int(frames[0])).permutation(frames)
        for side, half in zip(sides, np.array_split(drawn, 2), strict=True):
            side.append(np.sort(half))
    in_pool, in_test = (np.concatenate(side) for side in sides)
    test = mixed[in_test]
    cold = _without(cold, test)
    pool = Structures.concatenate([cold, _without(mixed[in_pool], test)])
    return LabelledPool("3bpa", pool, np.arange(len(cold)), test, in_test >= FRAMES_1200K[0], "frames at 1200 K")


def ammonia_pool(labelled: Structures) -> LabelledPool:
    """Starts at the pyramid, a few pool frames are nearly planar, is tested uniformly along the inversion."""
    part = np.array(labelled.text("origin/sampler"))
    pool = labelled[np.isin(part, [POOL_THERMAL, POOL_RARE])]
    test = labelled[part == TEST_UNIFORM]
    is_hard = np.array([abs(height(one.positions)[0]) <= RARE_HEIGHT_ANGSTROM for one in test])
    return LabelledPool(
        "ammonia_rare",
        pool,
        np.flatnonzero(np.array(pool.text("origin/sampler")) == POOL_THERMAL),
        test,
        is_hard,
        f"N within {RARE_HEIGHT_ANGSTROM} Å of the plane",
        labelled[part == TEST_THERMAL],
    )


def _without(structures: Structures, test: Structures) -> Structures:
    """Leave out what the test holds, and second copies."""
    known = set(test.ids)
    kept, _ = drop_duplicates(structures[np.array([name not in known for name in structures.ids], bool)])
    return kept


def _largest_forces(test: Structures) -> tuple[Array, str]:
    largest = structure_max(atom_norm(test.forces), test.ptr)
    share = round(100 * (1 - HARD_QUANTILE))
    return largest > np.quantile(largest, HARD_QUANTILE), f"the {share} % with the largest reference force"


AMMONIA = "ammonia_rare"
FROM_FILES: dict[str, tuple[str, Callable[[Path], LabelledPool]]] = {
    "acac": ("acac", _acac),
    "3bpa": ("3bpa", _3bpa),
    "rmd17_ethanol": ("rmd17", _rmd17("ethanol")),
    "rmd17_aspirin": ("rmd17", _rmd17("aspirin")),
}


def missing(name: str, data: Path) -> str | None:
    """Return why a pool can't be made here, None when it can.

    Raises
    ------
    ConfigError
        When no pool has this name.
    """
    if name not in FROM_FILES and name != AMMONIA:
        raise ConfigError(unknown_name("pool", name, [*FROM_FILES, AMMONIA]))
    if name in FROM_FILES and not (data / FROM_FILES[name][0]).is_dir():
        return f"{name}: skipped, there is no folder {FROM_FILES[name][0]} in the data folder {data}"
    return None


def files_key(name: str, data: Path) -> str:
    """Return a hash of the files that a pool is read from, empty for one that is made: cheap, nothing is parsed."""
    if name not in FROM_FILES or missing(name, data) is not None:
        return ""
    stem = name.removeprefix("rmd17_") if name.startswith("rmd17_") else ""
    files = sorted((data / FROM_FILES[name][0]).glob(f"{stem}*.xyz.gz"))
    return hash_json([[file.name, hash_file(file)] for file in files])


def load_pool(name: str, data: Path, ammonia: Path) -> LabelledPool:
    """Return a pool: from the data folder, or from the file of labelled ammonia frames.

    Raises
    ------
    ConfigError, DataError
        When no pool has this name, or its files are missing.
    """
    if name == AMMONIA:
        return ammonia_pool(read_structures(ammonia))
    reason = missing(name, data)
    if reason is not None:
        raise DataError(f"{reason}. Name the folder that holds it: data_folder in the study's settings.")
    return FROM_FILES[name][1](data)
