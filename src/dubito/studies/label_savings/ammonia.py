"""The rare pool: ammonia at rest in its pyramid, with a few frames near the planar geometry.

Geometries come from Langevin dynamics (BAOAB) on the analytic double well of :mod:`dubito.labelling.potentials`: free
ones stay in one well, restrained ones are held at a height of N over the plane of the H by a harmonic umbrella
(Torrie and Valleau 1977, https://doi.org/10.1016/0021-9991(77)90121-8), so that all other motions are thermal. The
well only proposes geometries; energies and forces are the labeller's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dubito.core.errors import DataError
from dubito.core.random import generator
from dubito.data.store import write_structures
from dubito.data.structures import Array, Structures
from dubito.labelling.cache import LabelCache
from dubito.labelling.potentials import DoubleWellAmmonia
from dubito.labelling.registry import make_labeller
from dubito.labelling.service import label_structures
from dubito.sampling.baoab import Baoab, maxwell_velocities
from dubito.studies.label_savings.settings import AmmoniaSettings

POOL_THERMAL, POOL_RARE, TEST_UNIFORM, TEST_THERMAL = "pool_thermal", "pool_rare", "test_uniform", "test_thermal"
NUMBERS, MASSES = np.array([7, 1, 1, 1]), np.array([14.003, 1.008, 1.008, 1.008])
# The umbrella is stiff: at 300 K the height strays by 0.02 Å.
STIFFNESS_EV_PER_A2 = 60.0
TIMESTEP_FS, FRICTION_PER_FS = 0.5, 0.02
# Longer than the decay of velocities (50 fs), so that frames of one walker are nearly independent.
STEPS_BETWEEN, STEPS_BEFORE, FRAMES_PER_WALKER = 100, 200, 20


def height(positions: Array) -> tuple[float, Array]:
    """Return the signed height of N over the plane of the H (Å) and its gradient (4, 3); order N, H, H, H."""
    first, second, w = positions[2] - positions[1], positions[3] - positions[1], positions[0] - positions[1]
    normal = np.cross(first, second)
    length = float(np.linalg.norm(normal))
    h = float(normal @ w) / length
    on_first = np.cross(second, w) / length - h * np.cross(second, normal) / length**2
    on_second = np.cross(w, first) / length - h * np.cross(normal, first) / length**2
    on_n = normal / length
    return h, np.array([on_n, -(on_n + on_first + on_second), on_first, on_second])


def ammonia_frames(settings: AmmoniaSettings, seed: int) -> Structures:
    """Return the unlabelled frames of pool and test; ``origin/sampler`` says which part each belongs to."""
    largest, rare = settings.largest_height_angstrom, settings.rare_height_angstrom
    free = settings.n_thermal + settings.n_test_thermal
    spread = generator(seed, "ammonia-heights").uniform(-1, 1, settings.n_rare)
    heights: list[float | None] = [None] * (-(-free // FRAMES_PER_WALKER))
    heights += list(rare * spread) + list(np.linspace(-largest, largest, settings.n_test_uniform))
    frames, numbers = [], generator(seed, "ammonia-dynamics").spawn(len(heights))
    for wanted, rng in zip(heights, numbers, strict=True):
        frames += _walk(settings.temperature_K, wanted, 1 if wanted is not None else FRAMES_PER_WALKER, rng)
    n_drawn = FRAMES_PER_WALKER * sum(one is None for one in heights)
    # Whole walkers go to the pool first, so that the test shares at most one of them with it.
    part = [POOL_THERMAL] * settings.n_thermal + [TEST_THERMAL] * (n_drawn - settings.n_thermal)
    part += [POOL_RARE] * settings.n_rare + [TEST_UNIFORM] * settings.n_test_uniform
    keep = np.r_[np.arange(free), np.arange(n_drawn, len(frames))]
    out = Structures.build([NUMBERS] * len(keep), [frames[i] for i in keep])
    return out.with_columns(origin__sampler=[part[i] for i in keep], origin__source="ammonia")


def _walk(temperature: float, wanted: float | None, n_frames: int, rng: np.random.Generator) -> list[Array]:
    """Return frames (4, 3) of one walker: free in the upper well, or held at a height."""
    potential, integrator = (
        DoubleWellAmmonia(),
        Baoab(MASSES, np.full(4, temperature), timestep_fs=TIMESTEP_FS, friction_per_fs=FRICTION_PER_FS),
    )
    positions = _umbrella(potential.height if wanted is None else wanted, potential.bond_length)
    velocities = maxwell_velocities(MASSES, temperature, rng)

    def forces_at(x: Array) -> Array:
        _, forces, _ = potential.evaluate(Structures.build([NUMBERS], [x]))
        if wanted is not None:
            h, gradient = height(x)
            forces = forces - STIFFNESS_EV_PER_A2 * (h - wanted) * gradient
        return forces

    out, forces = [], forces_at(positions)
    for step in range(1, STEPS_BEFORE + STEPS_BETWEEN * (n_frames - 1) + 1):
        positions, velocities = integrator.advance(positions, velocities, forces, rng.normal(size=(4, 3)))
        forces = forces_at(positions)
        velocities = integrator.finish(velocities, forces)
        if step >= STEPS_BEFORE and (step - STEPS_BEFORE) % STEPS_BETWEEN == 0:
            out.append(positions - positions.mean(axis=0))
    return out


def _umbrella(h: float, bond: float) -> Array:
    """Return a symmetric geometry of this height (Å) and N-H distance."""
    angles = 2 * np.pi / 3 * np.arange(3)
    radius = np.sqrt(bond**2 - h**2)
    ring = np.stack([radius * np.cos(angles), radius * np.sin(angles), np.zeros(3)], axis=1)
    return np.vstack([[0.0, 0.0, h], ring])


def make_ammonia(path: Path, settings: AmmoniaSettings, seed: int, label_cache: Path | None) -> Structures:
    """Label the frames and write them; a label that the cache holds is not computed again, so this resumes.

    Raises
    ------
    DataError
        When labels failed: the pool would not be the one that was meant.
    """
    labeller = make_labeller(settings.labeller)
    cache = None if label_cache is None else LabelCache(label_cache, labeller.settings())
    labelled, report = label_structures(ammonia_frames(settings, seed), labeller, cache)
    if report["failed"]:
        first = report["failed"][0]
        raise DataError(
            f"{len(report['failed'])} of {len(labelled)} ammonia frames could not be labelled, the first because "
            f"'{first['reason']}': {first['message']} All have to be; lower ammonia.temperature_K in the study's "
            "settings or mend the labeller, and start again."
        )
    write_structures(path, labelled, attributes={"cpu_s": report["cpu_s"]})
    return labelled
