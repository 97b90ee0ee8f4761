"""An ensemble trained from scratch for a fixed number of steps, and how doubtful it finds structures."""

from __future__ import annotations

import math

from dubito.config.training import TrainingConfig
from dubito.data.statistics import fit_statistics
from dubito.data.structures import Array, Structures
from dubito.metrics.reduce import worst_atom
from dubito.model.potential import Potential
from dubito.studies.label_savings.settings import StudySettings
from dubito.training.loop import Trainer

# The schedule has a fixed length and stops nothing early, so no label is held out. The trainer still compares epochs
# to keep the best weights; it does so on this many training structures, and with a cosine those are the last ones.
N_WATCHED = 4


def train(labelled: Structures, settings: StudySettings, r_max_angstrom: float, seed: int) -> Potential:
    """Return an ensemble trained on all labelled structures.

    The weights start the same in each round and for each selector (same ``seed``), and the number of steps is that of
    the settings, rounded up to whole epochs: two campaigns with equally many labels do equally many steps.
    """
    model = settings.model.model_copy(update={"r_max_angstrom": r_max_angstrom})
    members = list(range(settings.n_members))
    potential = Potential(model, fit_statistics(labelled, r_max_angstrom), settings.n_members)
    potential.initialise(seed, members)
    epochs = math.ceil(settings.n_steps / math.ceil(len(labelled) / settings.batch_size))
    recipe = TrainingConfig(
        n_members=settings.n_members,
        batch_size=settings.batch_size,
        max_epochs=epochs,
        early_stopping_epochs=epochs,
        schedule="cosine",
        learning_rate=settings.learning_rate,
    )
    Trainer(potential, labelled, labelled[: min(N_WATCHED, len(labelled))], recipe, seed=seed, members=members).run()
    return potential


def scores(potential: Potential, structures: Structures) -> Array:
    """Return how doubtful each structure is, (n,) eV/Å: the largest deviation of an atom's force over the members.

    The deviations are raw: a calibration would multiply all by one factor and change no order.
    """
    return worst_atom(potential.predict(structures).uncertainty["forces"], structures.ptr)
