"""How long a job will take and how much memory it needs, guessed from its work before anything is measured.

Guesses are generous: a job that asks for too little is killed, one that asks for too much waits a little longer in the
queue. The unit costs are measurements on ammonia with the default network (the demo campaign on two slow cores, see
docs/performance.md) times the factor that a molecule of some thirty atoms takes more; time-outs double what is left
too short, and lose nothing in training and labelling. Python, torch and Snakemake's two processes are in the floors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from dubito.config import Config
from dubito.core.errors import DubitoError
from dubito.core.files import read_object

# Seconds to train one structure in one member for one epoch: 0.9 ms measured on four atoms.
TRAINING_S: Final = 0.02
# Seconds of one step of one walker in one member: 0.33 ms measured.
STEP_S: Final = 0.006
# Seconds to predict a structure with one member and ask a method about it: 0.2 ms measured on 27 atoms.
SCORE_S: Final = 0.003
# MB of a structure's graph and geometry, which a training keeps, and of one in a batch with its derivatives.
GRAPH_MB: Final = 0.5
BATCH_MB: Final = 8.0
# MB for selecting from a small pool.
SELECTING_MB: Final = 4000
# Minutes for a label of at most this many basis functions. 3BPA (27 atoms, some 270) takes 3 CPU minutes.
LABEL_MIN: Final = 15.0
LABEL_BASIS: Final = 300
# Diagonalisation and fitted exchange grow with the third power of the basis.
LABEL_POWER: Final = 3.0
# Auxiliary functions of the density fitting for each basis function: def2-universal-jkfit on CO, 5.4 with def2-SVP and
# 2.5 with def2-TZVP.
_AUXILIARY: Final = 5
# Basis functions of H, C, Si, Ge and Sn, for their rows of the periodic table: STO-3G, def2-SVP, def2-TZVP and
# def2-QZVP as PySCF builds them. Other bases are like the one of their size, heavier elements like tin.
_FUNCTIONS: Final = {
    1: (1, 5, 9, 18, 27),
    2: (5, 14, 18, 32, 32),
    3: (6, 31, 37, 48, 50),
    4: (30, 57, 70, 75, 82),
}
_LAST_OF_ROW: Final = (2, 10, 18, 36)


def training_minutes(config: Config, labels: int) -> int:
    """Return a time for one training job of ``labels`` structures, minutes; it goes on where it was cut off."""
    training = config.training
    together = min(training.n_members, training.members_per_job)
    steps_per_epoch = max(1, math.ceil(labels / training.batch_size))
    epochs = max(training.max_epochs, math.ceil(training.min_steps / steps_per_epoch))
    before = 30 + training.members_per_job * training.max_epochs // 20
    return max(before, 30 + math.ceil(epochs * labels * together * TRAINING_S * _network(config) / 60))


def training_mb(config: Config, labels: int) -> int:
    """Return memory for one training job, MB: torch, the data with its graph, a batch for each member."""
    training = config.training
    together = min(training.n_members, training.members_per_job)
    batch = min(training.batch_size, labels) * together * BATCH_MB * _network(config)
    return 4000 + math.ceil(labels * GRAPH_MB + batch)


def exploring_minutes(config: Config) -> int:
    """Return a time for one exploring job, minutes: that of the sampler that takes longest."""
    cost = config.training.n_members * STEP_S * _network(config)
    return max(
        max(15 + sampler.n_rounds // 100, 15 + math.ceil(sampler.evaluations_per_job * cost / 60))
        for sampler in config.sampling.samplers
    )


def scoring_minutes(config: Config) -> int:
    """Return a time for scoring the pool with one method, minutes; it is streamed, so its memory does not grow."""
    found = sum(sampler.n_jobs * sampler.candidates_per_job for sampler in config.sampling.samplers)
    return 60 + math.ceil(found * config.training.n_members * SCORE_S * _network(config) / 60)


def selecting_mb(candidates: Path) -> int:
    """Return memory for selecting from a pool, MB: its distances three times, on top of what small pools take.

    ``8 bytes * n (n - 1) / 2`` for a structure of n atoms, of at most 4096 distances. The whole pool's are compared
    with what is labelled, and copied by selectors that ask how structures differ. That of a pool that is not there yet
    is asked again when it is.
    """
    found = _distances_mb(candidates, candidates.stat().st_mtime_ns) if candidates.exists() else 0.0
    return SELECTING_MB + math.ceil(3 * found)


@lru_cache(maxsize=64)
def _distances_mb(candidates: Path, changed: int) -> float:
    """Return the fingerprints of all candidates, MB; 0 where the file can't be read."""
    import numpy as np

    from dubito.data.fingerprints import MAX_DISTANCES
    from dubito.data.streaming import StructuresReader

    del changed
    try:
        with StructuresReader(candidates) as reader:
            n = reader.n_atoms.astype("i8")
    except DubitoError:
        return 0.0  # whoever selects from it says what is wrong with it
    return float(8e-6 * np.minimum(n * (n - 1) // 2, MAX_DISTANCES).sum())


def fitting_minutes(config: Config, labels: int) -> int:
    """Return a time for what runs over all labels with network and method: fits and predictions, minutes."""
    return 60 + math.ceil(labels * config.training.n_members * 10 * SCORE_S * _network(config) / 60)


def fitting_mb(labels: int) -> int:
    """Return memory for the same, MB."""
    return 4000 + math.ceil(2 * GRAPH_MB * labels)


def labelling_minutes(manifest: Mapping[str, Any], basis_functions: int | None = None) -> int:
    """Return a time for one labelling job of a batch, minutes; finished structures are kept when it runs out.

    Three times what labels have taken so far, once they are measured. Before that a quarter of an hour for each
    structure, and more for those of more than 300 basis functions. A quarter of an hour beside in both.
    """
    structures: int = max(1, math.ceil(manifest["n_selected"] / max(1, manifest["n_shards"])))
    seconds = _sharding(manifest).get("seconds_per_structure")
    if isinstance(seconds, int | float) and 0 <= seconds < math.inf:
        return 15 + math.ceil(structures * 3 * seconds / 60)
    times: float = max(1.0, (basis_functions or 0) / LABEL_BASIS) ** LABEL_POWER
    return 15 + math.ceil(structures * LABEL_MIN * times)


def labelling_mb(basis_functions: int | None) -> int:
    """Return memory for labels, MB: twice the fitted integrals, on top of program, grids and Snakemake.

    ``8 bytes * auxiliary * n (n + 1) / 2`` are kept where memory allows; PySCF is told how much there is, and goes to
    the disk where that is too little.
    """
    n = basis_functions or 0
    return 2000 + math.ceil(2 * 8e-6 * _AUXILIARY * n * n * (n + 1) / 2)


def batch_minutes(config: Config, manifest: Path, selected: Path) -> int:
    """Return :func:`labelling_minutes` of a batch from its files, minutes.

    Raises
    ------
    FileNotFoundError
        When the batch is not selected yet: Snakemake takes that for an answer that comes later.
    DataError
        When the manifest is damaged.
    """
    manifest.stat()  # whose error names the file, by which Snakemake knows it
    plan = read_object(manifest, n_selected=int, n_shards=int)
    is_measured = "seconds_per_structure" in _sharding(plan)
    return labelling_minutes(plan, None if is_measured else _largest(config, selected))


def _sharding(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how the shards of a batch were planned; older batches don't say."""
    found = manifest.get("sharding")
    return found if isinstance(found, Mapping) else {}


def batch_mb(config: Config, selected: Path) -> int:
    """Return :func:`labelling_mb` of the largest structure of a batch, MB."""
    return labelling_mb(_largest(config, selected))


def _largest(config: Config, selected: Path) -> int | None:
    """Return the basis functions of the largest structure, None where labels are not made with PySCF."""
    labeller = config.labelling.labeller
    basis = getattr(labeller, "basis", None)
    if basis is None or not selected.exists():
        return None
    return _largest_of(selected, selected.stat().st_mtime_ns, basis)


@lru_cache(maxsize=64)
def _largest_of(selected: Path, changed: int, basis: str) -> int | None:
    # Read once for a batch: every job of it asks, and several times.
    from dubito.data.store import read_structures

    del changed
    try:
        structures = read_structures(selected)
    except DubitoError:
        return None  # whoever labels it says what is wrong with it
    if not len(structures):
        return None
    one = structures[int(structures.n_atoms.argmax())]
    return basis_functions([int(z) for z in one.atomic_numbers], basis)


def basis_functions(atomic_numbers: Iterable[int], basis: str) -> int:
    """Return about how many basis functions these atoms have; what is known of the basis is its name."""
    functions = _FUNCTIONS[_size(basis.lower())]
    return sum(functions[sum(z > last for last in _LAST_OF_ROW)] for z in atomic_numbers)


def _size(basis: str) -> int:
    """Return 1 (minimal) to 4 (quadruple zeta) from the name of a basis; 3 where it says nothing."""
    named = {4: ("qz", "5z"), 3: ("tz", "311", "pc-2"), 1: ("sto", "minao"), 2: ("sv", "dz", "21g", "31g", "pc-1")}
    return next((size for size, words in named.items() if any(word in basis for word in words)), 3)


def _network(config: Config) -> float:
    """Return how much more this network costs than the default one (32 channels, l = 1, 3 layers), at least 1."""
    model = config.model
    return max(1.0, model.n_features / 32 * ((model.l_max + 1) / 2) ** 2 * model.n_layers / 3)
