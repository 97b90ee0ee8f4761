"""Build and label an inversion profile, which every iteration's model is measured on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.data import DataConfig
from dubito.config.evaluation import InversionProfile
from dubito.config.labelling import LabellingConfig
from dubito.core.errors import ConfigError
from dubito.data.molecules import equilibrium
from dubito.data.store import write_structures
from dubito.data.structures import Structures
from dubito.labelling.base import NOT_FOUND, Label, LabellingFailure
from dubito.labelling.cache import LabelCache
from dubito.labelling.checks import symbols
from dubito.labelling.inversion import (
    MIN_HEIGHT_ANGSTROM,
    Umbrella,
    flattened,
    geometry_at,
    height_of,
    heights,
    mirrored,
    require_fit,
    umbrella_of,
)
from dubito.labelling.registry import make_labeller
from dubito.labelling.relax import KeepInPlane, LabelSource, relax
from dubito.labelling.teacher import without_rehearsed_failures
from dubito.labelling.vouching import new_job, sign


def run(
    *,
    output: Path,
    profile: InversionProfile,
    data: DataConfig,
    labelling: LabellingConfig,
    cache: Path,
    threads: int,
) -> str:
    """Relax the minimum and the planar geometry, label the path between them, and write it.

    Every label goes through the cache, so that a killed job repeats none. Only heights >= 0 are labelled;
    the other half is their mirror image. The root attribute ``cpu_s`` is the processor time of all labels,
    those of the relaxation included.

    Raises
    ------
    ConfigError
        When the profile does not fit the molecule, or the labeller knows no new geometries.
    LabelError
        When the molecule does not suit the labeller, or its forces are not those of its energies: that is asked of
        the first label, before a relaxation follows them.
    LabellingFailure
        When one of the labels fails: a profile with holes has no barrier.
    """
    start = equilibrium(data)
    require_fit(start, profile)
    # Failures are rehearsed in batches, which can do without some of their labels.
    labeller = make_labeller(without_rehearsed_failures(labelling.labeller), threads=threads)
    labeller.check(start)
    signed = sign(LabelCache(cache, labeller.settings()), labeller, labelling.checks, new_job())
    source = LabelSource(labeller, signed, f"evaluation.profiles: '{profile.name}'", labelling.checks)
    try:
        minimum, planar = _ends(start, profile, source)
        grid = heights(minimum.height, profile.n_points)
        upper = [replace(start, positions=geometry_at(h, minimum, planar, profile)) for h in grid]
        labels = [source(one) for one in upper]
    except LabellingFailure as failure:
        if failure.reason != NOT_FOUND:
            raise
        raise ConfigError(
            f"{failure} A profile needs labels of geometries that are in no file: set evaluation.profiles to []."
        ) from failure
    structures = _both_sides(upper, labels, labeller.settings_hash)
    lowest = int(np.argmin(np.abs(grid - minimum.height)))
    attributes = _attributes(profile, grid, lowest, start)
    about = {"profile": attributes, "settings": labeller.settings(), "cpu_s": source.cpu_s}
    write_structures(output, structures, attributes=about)
    barrier = labels[0].energy - labels[lowest].energy
    known = f", {source.reused} known already" if source.reused else ""
    return (
        f"profile '{profile.name}': {len(structures)} points, barrier {1000 * barrier:.0f} meV, "
        f"{source.computed} labels computed{known}"
    )


def _ends(start: Structures, profile: InversionProfile, source: LabelSource) -> tuple[Umbrella, Umbrella]:
    """Return the umbrella at the minimum and in the plane, relaxed if the profile says so."""
    relaxed = relax(start, source) if profile.relax else start
    require_fit(relaxed, profile)
    height = height_of(relaxed.positions, profile)
    if abs(height) < MIN_HEIGHT_ANGSTROM:
        raise ConfigError(
            f"{source.purpose}: atom {profile.center_atom} lies {abs(height):.3f} Å from the plane of the atoms "
            f"{profile.plane_atoms} at the minimum, so that there is nothing to invert. Name another atom, or set "
            "evaluation.profiles to []."
        )
    minimum = umbrella_of(relaxed.positions, profile)
    planar = flattened(minimum, profile)
    if profile.relax:
        flat = relax(replace(start, positions=planar.positions), source, KeepInPlane(profile))
        planar = umbrella_of(flat.positions, profile)
    return minimum, planar


def _both_sides(upper: list[Structures], labels: list[Label], settings_hash: str) -> Structures:
    """Return the whole path by ascending height; the labels below the plane are mirror images."""
    order = [*range(len(upper) - 1, 0, -1), *range(len(upper))]
    below = len(upper) - 1
    structures = Structures.concatenate(
        [
            replace(upper[i], positions=mirrored(upper[i].positions)) if k < below else upper[i]
            for k, i in enumerate(order)
        ]
    )
    forces = [mirrored(labels[i].forces) if k < below else labels[i].forces for k, i in enumerate(order)]
    return structures.with_columns(
        labels__energy=[labels[i].energy for i in order],
        labels__forces=np.concatenate(forces),
        labels__mask=True,
        provenance__kind=[labels[i].kind for i in order],
        provenance__method=[labels[i].method[:64] for i in order],
        provenance__code_version=[labels[i].code_version[:32] for i in order],
        provenance__settings_hash=settings_hash,
        provenance__attempts=[labels[i].attempts for i in order],
        provenance__wall_time=[0.0 if k < below else labels[i].wall_time_s for k, i in enumerate(order)],
    )


def _attributes(profile: InversionProfile, grid: Any, lowest: int, start: Structures) -> dict[str, Any]:
    """Describe the profile for its readers; ``lowest`` is the minimum's place among the heights >= 0."""
    coordinate = np.concatenate([-grid[:0:-1], grid])
    names = symbols(start.atomic_numbers)
    neighbours = sorted({names[i] for i in profile.plane_atoms})
    label = f"{names[profile.center_atom]} height over {'/'.join(neighbours)} plane"
    return {
        "name": profile.name,
        "kind": profile.kind,
        "coordinate": coordinate.tolist(),
        "coordinate_label": label,
        "coordinate_unit": "Angstrom",
        "minimum_index": len(grid) - 1 + lowest,
        "barrier_index": len(grid) - 1,
    }
