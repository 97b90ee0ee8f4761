"""Conformance suite of samplers: subclass, say how to make one, run with pytest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dubito.config.sanity import SanityConfig
from dubito.core.errors import DataError
from dubito.data.prediction import Prediction
from dubito.data.sanity import ENERGY, FORCE, NOT_FINITE, SanityCheck
from dubito.data.structures import Array, Structures
from dubito.sampling.base import Sampled, Sampler
from dubito.testing.structures import rattled, toy_labels
from dubito.uncertainty.base import Predictor

Doubt = Callable[[Structures], Array]
Spoil = Callable[[Structures, Prediction], Prediction]


class ToyPredictor:
    """The toy pair potential as a predictor whose doubt is given.

    Parameters
    ----------
    doubt : structures -> (N,) eV/Å, standard deviation of each force component of an atom; a number: constant
    spoil : changes a prediction before it is returned
    """

    def __init__(self, doubt: Doubt | float = 0.01, spoil: Spoil | None = None) -> None:
        self.doubt, self.spoil, self.batches = doubt, spoil, list[int]()

    def predict(self, structures: Structures) -> Prediction:
        """Predict; the sizes of all batches are remembered."""
        self.batches.append(len(structures))
        known = toy_labels(structures)
        n_atoms = int(structures.ptr[-1])
        sigma = self.doubt(structures) if callable(self.doubt) else np.full(n_atoms, self.doubt)
        out = Prediction(
            ptr=structures.ptr,
            energy=known.energy,
            energies=np.repeat(known.energy / structures.n_atoms, structures.n_atoms),
            forces=known.forces,
            uncertainty={"forces": np.repeat(sigma[:, None], 3, axis=1)},
        )
        return out if self.spoil is None else self.spoil(structures, out)


class SamplerTests:
    """What every sampler must do, on ammonia with the toy pair potential.

    A sampler that can do nothing with ammonia gets other molecules from the fixture ``labelled``; one that asks more of
    its predictor than :class:`ToyPredictor` gives overrides ``make_predictor``.
    """

    sanity = SanityConfig(max_energy_above_min_ev_per_atom=3.0)

    def make(self, sanity: SanityConfig) -> Sampler:
        """Return the sampler under test, quick enough for a test."""
        raise NotImplementedError("say how to make the sampler")

    def make_predictor(self, doubt: Doubt | float = 0.01, spoil: Spoil | None = None) -> Predictor:
        """Return the predictor to explore with, see :class:`ToyPredictor`."""
        return ToyPredictor(doubt, spoil)

    @pytest.fixture
    def labelled(self) -> Structures:
        """Labelled structures to start from."""
        return toy_labels(rattled(6, seed=4, displacement=0.03, molecules="ammonia"))

    def sample(
        self, labelled: Structures, predictor: Predictor | None = None, *, seed: int = 1, job: int = 0
    ) -> Sampled:
        """Run the sampler under test in iteration 2."""
        return self.make(self.sanity).sample(
            predictor or self.make_predictor(), labelled, seed=seed, iteration=2, job=job
        )

    def test_is_deterministic(self, labelled: Structures) -> None:
        first, again = self.sample(labelled), self.sample(labelled)
        assert len(first.candidates) > 0
        np.testing.assert_array_equal(first.candidates.positions, again.candidates.positions)
        assert first.stops == again.stops

    def test_seed_and_job_change_the_candidates(self, labelled: Structures) -> None:
        base = set(self.sample(labelled).candidates.ids)
        assert not base & set(self.sample(labelled, seed=2).candidates.ids)
        assert not base & set(self.sample(labelled, job=1).candidates.ids)

    def test_candidates_are_sane_and_new(self, labelled: Structures) -> None:
        found = self.sample(labelled).candidates
        said = self.make_predictor().predict(found)
        assert SanityCheck(self.sanity, labelled).check(found, energy=said.energy, forces=said.forces).sane.all()
        assert not set(found.ids) & set(labelled.ids)
        assert len(set(found.ids)) == len(found)
        assert not found.is_labelled.any()

    def test_candidates_say_where_they_come_from(self, labelled: Structures) -> None:
        sampler, found = self.make(self.sanity), self.sample(labelled).candidates
        assert all(name.startswith(sampler.name) for name in found.text("origin/sampler"))
        # A name that fills its column may have been cut off, and two of them become one.
        for column, size in (("origin/sampler", 24), ("origin/trajectory", 48)):
            assert all(len(name) < size for name in found.text(column)), column
        parents = {name: one for name, one in zip(labelled.ids, labelled, strict=True)}
        for name, one in zip(found.text("origin/parent"), found, strict=True):
            np.testing.assert_array_equal(one.atomic_numbers, parents[name].atomic_numbers)
            assert (one.charge, one.multiplicity) == (parents[name].charge, parents[name].multiplicity)
        assert set(found.column("origin/iteration").tolist()) == {2}
        assert all(found.text("origin/source"))
        assert all(found.text("origin/trajectory"))

    def test_trajectories_of_jobs_and_iterations_differ(self, labelled: Structures) -> None:
        sampler, names = self.make(self.sanity), list[str]()
        for iteration, job in ((1, 0), (1, 1), (2, 0)):
            found = sampler.sample(self.make_predictor(), labelled, seed=1, iteration=iteration, job=job)
            names += sorted(set(found.candidates.text("origin/trajectory")))
        assert len(set(names)) == len(names)

    def test_every_walker_stops_for_one_reason(self, labelled: Structures) -> None:
        found = self.sample(labelled)
        assert sum(found.stops.values()) == found.walkers
        assert found.steps > 0

    def test_predictions_that_are_not_numbers_end_walkers(self, labelled: Structures) -> None:
        def spoil(_: Structures, prediction: Prediction) -> Prediction:
            return replace(prediction, forces=np.full_like(prediction.forces, np.nan))

        found = self.sample(labelled, self.make_predictor(spoil=spoil))
        assert found.stops == {NOT_FINITE: found.walkers}
        assert len(found.candidates) == 0

    @pytest.mark.parametrize(("what", "factor", "reason"), [("energy", 0.0, ENERGY), ("forces", 1e4, FORCE)])
    def test_predictions_above_the_ceilings_give_no_candidates(
        self, labelled: Structures, what: str, factor: float, reason: str
    ) -> None:
        def spoil(_: Structures, prediction: Prediction) -> Prediction:
            # Energies are negative: 0 eV is far above any label.
            return replace(prediction, **{what: factor * getattr(prediction, what)})

        found = self.sample(labelled, self.make_predictor(spoil=spoil))
        assert found.stops == {reason: found.walkers}
        assert len(found.candidates) == 0

    def test_without_a_sane_start_there_is_nothing_to_explore(self, labelled: Structures) -> None:
        impossible = self.sanity.model_copy(update={"max_force_ev_per_angstrom": 1e-9})
        with pytest.raises(DataError, match="nowhere to start exploring"):
            self.make(impossible).sample(self.make_predictor(), labelled, seed=1, iteration=2)
        unlabelled = replace(labelled, columns={})
        with pytest.raises(DataError, match="None of the 0 labelled structures"):
            self.make(self.sanity).sample(self.make_predictor(), unlabelled, seed=1, iteration=2)

    def test_starts_from_labelled_structures_alone(self, labelled: Structures) -> None:
        mask = np.arange(len(labelled)) % 2 == 0
        found = self.sample(labelled.with_columns(labels__mask=mask)).candidates
        assert set(found.text("origin/parent")) <= set(labelled[mask].ids)

    def test_leaves_the_labelled_structures_alone(self, labelled: Structures) -> None:
        before = labelled.positions.copy()
        self.sample(labelled)
        np.testing.assert_array_equal(labelled.positions, before)
