"""One cell of the study: a campaign of one selector, replayed on a labelled pool from one random initial set."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from dubito.config.sanity import SanityConfig
from dubito.config.selection import SelectionConfig
from dubito.core.errors import DataError
from dubito.core.hashing import hash_json
from dubito.core.random import generator, seed_for
from dubito.data.structures import Array
from dubito.model.potential import Potential
from dubito.selection.batch import choose_batch
from dubito.stages._features import features_of
from dubito.studies.label_savings.networks import scores, train
from dubito.studies.label_savings.pools import LabelledPool
from dubito.studies.label_savings.settings import STUDY_VERSION, StudySettings

RANDOM = "random"
# The pool is labelled already, so nothing in it may be refused: gates are as wide as they go.
OPEN_GATES = SanityConfig(
    min_distance_factor=1e-6,
    max_bond_factor=4.0,
    max_fragments=1000,
    max_energy_above_min_ev_per_atom=1e6,
    max_force_ev_per_angstrom=1e6,
)


@dataclass(frozen=True)
class Start:
    """What campaigns of one pool and seed have in common: indices of the initial set, and the networks made of it."""

    labelled: Array
    potential: Potential


def run_cell(
    pool: LabelledPool, selector: str, seed: int, settings: StudySettings, start: Start | None = None
) -> dict[str, Any]:
    """Replay one campaign; return its learning curve.

    Parameters
    ----------
    pool : of which one initial set is drawn per ``seed``, the same for all selectors
    selector : by name
    seed : number of the campaign, 0, 1, …
    start : of this pool and seed, when it is there from another selector; it would only be made the same again

    Returns
    -------
    dict
        ``curve``: a point per round, see :func:`measure`, with ``labels``; ``picks``: ids of what was selected in
        each round; ``key``: :meth:`StudySettings.cell_key`; ``data``: :attr:`LabelledPool.data_hash`; ``version``:
        :data:`STUDY_VERSION`.

    Raises
    ------
    DataError
        When the pool is too small for the labels of the last round.
    """
    began = time.process_time()
    own = settings.pools[pool.name]
    scope = ("label_savings", pool.name, seed)
    start = start or make_start(pool, seed, settings)
    labelled, picks, curve = start.labelled, [], []
    for round_, wanted in enumerate([*own.labels[1:], None]):
        potential = start.potential if round_ == 0 else _train(pool, labelled, seed, settings)
        curve.append({"labels": len(labelled), **measure(potential, pool)})
        if wanted is None:
            break
        n_select = wanted - len(labelled)
        batch = _select(potential, pool, labelled, selector, n_select, seed_for(settings.seed, *scope), round_)
        picks.append([pool.structures.ids[i] for i in batch])
        # In the order of selection: the networks are trained on a set, and batches are drawn from the campaign's seed.
        labelled = np.concatenate([labelled, batch])
    return {
        "pool": pool.name,
        "selector": selector,
        "seed": seed,
        "key": settings.cell_key(pool.name),
        "data": pool.data_hash,
        "version": STUDY_VERSION,
        "initial": hash_initial(pool, start.labelled),
        "n_pool": len(pool.structures),
        "n_test": len(pool.test),
        "hard": pool.hard,
        "curve": curve,
        "picks": picks,
        "cpu_s": time.process_time() - began,
    }


def make_start(pool: LabelledPool, seed: int, settings: StudySettings) -> Start:
    """Draw the initial set of a campaign and train on it: the same for all selectors.

    Raises
    ------
    DataError
        When the pool is too small for the labels of the last round.
    """
    labelled = draw_initial(pool, seed, settings)
    return Start(labelled, _train(pool, labelled, seed, settings))


def draw_initial(pool: LabelledPool, seed: int, settings: StudySettings) -> Array:
    """Return the indices of the initial set, increasing.

    Raises
    ------
    DataError
        When the pool is too small for the labels of the last round.
    """
    labels = settings.pools[pool.name].labels
    if len(pool.initial) < labels[0] or len(pool.structures) < labels[-1]:
        raise DataError(
            f"The pool '{pool.name}' holds {len(pool.structures)} structures, {len(pool.initial)} of them to start "
            f"from, but its campaigns want {labels} labels. Lower pools.{pool.name}.labels in the study's settings."
        )
    order = generator(settings.seed, "label_savings", pool.name, seed, "initial").permutation(pool.initial)
    return np.sort(order[: labels[0]])


def hash_initial(pool: LabelledPool, labelled: Array) -> str:
    """Return the hash of the ids of an initial set."""
    return hash_json(sorted(pool.structures.ids[i] for i in labelled))


def _train(pool: LabelledPool, labelled: Array, seed: int, settings: StudySettings) -> Potential:
    scope = ("label_savings", pool.name, seed, "networks")
    r_max = settings.pools[pool.name].r_max_angstrom
    return train(pool.structures[labelled], settings, r_max, seed_for(settings.seed, *scope))


def _select(
    potential: Potential, pool: LabelledPool, labelled: Array, selector: str, n_select: int, seed: int, round_: int
) -> Array:
    """Return indices of the structures that the selector takes, of those not labelled; labels are not looked at."""
    is_open = np.ones(len(pool.structures), bool)
    is_open[labelled] = False
    rows = np.flatnonzero(is_open)
    candidates, known = pool.structures[rows], pool.structures[labelled]
    # Diversity is measured as a campaign does with selection.features: latent. Random looks at nothing.
    blind = np.zeros((len(candidates), 1)), np.zeros((len(known), 1))
    of_pool, of_known = blind if selector == RANDOM else features_of(potential, "latent", candidates, known)
    batch = choose_batch(
        candidates,
        labelled=known,
        config=SelectionConfig(
            selector=selector, n_select=n_select, control_fraction=0.0, duplicate_distance_angstrom=0.0
        ),
        sanity=OPEN_GATES,
        seed=seed,
        # Iteration 0 is that of the initial set.
        iteration=round_ + 1,
        scores=np.zeros(len(candidates)) if selector == RANDOM else scores(potential, candidates),
        features=of_pool,
        labelled_features=of_known,
    )
    out: Array = rows[np.array(batch.chosen, dtype=int)]
    return out


def measure(potential: Potential, pool: LabelledPool) -> dict[str, float]:
    """Return errors on the test: forces in meV/Å by component, energies in meV of a whole structure.

    ``energy_spread_mev`` is the energy RMSE after the mean error is taken off: a constant changes no physics, and a
    start at another temperature is wrong by one.
    """
    said, test = potential.predict(pool.test), pool.test
    error = said.forces - test.forces
    energy = said.energy - test.energy
    hard = pool.is_hard[test.structure_of_atom]
    out = {
        "force_rmse_mev_per_angstrom": _rms(error),
        "hard_force_rmse_mev_per_angstrom": _rms(error[hard]),
        "energy_rmse_mev": _rms(energy),
        "energy_spread_mev": _rms(energy - energy.mean()),
    }
    if pool.other_test is not None:
        other = potential.predict(pool.other_test)
        out["other_force_rmse_mev_per_angstrom"] = _rms(other.forces - pool.other_test.forces)
    return out


def _rms(values: Array) -> float:
    return float(1e3 * np.sqrt(np.mean(values**2)))
