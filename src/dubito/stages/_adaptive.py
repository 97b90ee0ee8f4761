"""Scores of a pool with one member first, and with all members where they could change the decision.

Three passes in bounded memory: the first member everywhere, the others where the cascade wants them, the file.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dubito.config.scoring import ScoringConfig
from dubito.config.selection import SelectionConfig
from dubito.core.errors import ModelError
from dubito.core.files import storage_errors
from dubito.core.logs import get_logger
from dubito.core.progress import track
from dubito.data.prediction import Array
from dubito.data.store import read_structures
from dubito.data.streaming import stream_structures
from dubito.data.structures import Structures
from dubito.metrics.reduce import structure_max
from dubito.scoring.cascade import Cascade, Verdict
from dubito.scoring.cheap import NAMES, CheapScore
from dubito.scoring.evaluations import Evaluations
from dubito.scoring.matter import rule_of
from dubito.scoring.members import joined, joined_forces
from dubito.scoring.scratch import Scratch
from dubito.scoring.words import line, record
from dubito.stages._accepted import ADAPTIVE, accepted_up_to
from dubito.stages._predicting import PIECE_ATOMS, PIECE_STRUCTURES, read_pieces, survey
from dubito.uncertainty.ensemble import EnsembleUncertainty

log = get_logger(__name__)
_SAMPLER = "origin/sampler"
# A standard deviation of a component is this share of the rms length of the error vector.
_COMPONENT = 1 / np.sqrt(3)


@dataclass(frozen=True)
class Piece:
    """Some structures of the pool, with the number of the first of them and of its first atom."""

    structures: Structures
    first: int
    atom: int


def score_adaptively(
    method: EnsembleUncertainty,
    dataset: Path,
    sources: list[Path],
    output: Path,
    attributes: dict[str, Any],
    *,
    scoring: ScoringConfig,
    selection: SelectionConfig,
    seed: int,
    metrics: Path | None = None,
) -> tuple[int, str]:
    """Write the structures of all sources, in order, with predictions of the ensemble.

    Parameters
    ----------
    metrics : ``metrics.json`` of the iteration before, where its certificate bounds what is selected

    Returns
    -------
    How many there are, and what to tell.

    Candidates that were not escalated have energy and forces of the first member, and an upper estimate of the full
    score as ``forces_uncertainty``: spread over the atoms like their distances from the training atoms.

    Raises
    ------
    DataError
        When a source can't be read, or there are no training structures.
    StorageError
        When the file system refuses; an older output stays as it was.
    """
    n, n_atoms, total, columns = survey(sources)
    rule = rule_of(scoring, selection, n, _limits(metrics, sources, method.name))
    with storage_errors(output), Scratch(output.parent) as scratch:
        pool = _Pool(method, dataset, sources, (n, n_atoms, total), scratch)
        pool.ask_first()
        n_members = method.potential.n_members
        cascade = Cascade(pool.features, pool.full_scores, n_members=n_members, rule=rule, seed=seed)
        start = time.process_time()
        verdict = cascade.decide()
        pool.cpu_s["decide"] = time.process_time() - start - pool.cpu_s["other_members"]
        account = Evaluations(n, int(verdict.full.sum()), n_members, pool.n_known)
        # Not in the file: what the same seed makes is the same to the byte.
        log.info("CPU seconds: %s", {name: round(value, 3) for name, value in pool.cpu_s.items()})
        about = attributes | {"adaptive": record(rule, verdict, account)}
        named = columns | {"scoring/escalated"}
        with stream_structures(output, n=n, n_atoms=n_atoms, columns=named, attributes=about) as writer:
            for part, said in pool.said(verdict):
                writer.append(part, {method.name: said})
    return n, line(account, verdict)


class _Pool:
    """The pool in pieces, and what the members said of it so far."""

    def __init__(
        self,
        method: EnsembleUncertainty,
        dataset: Path,
        sources: list[Path],
        size: tuple[int, int, int],
        scratch: Scratch,
    ) -> None:
        self._method, self._dataset, self._sources, self._scratch = method, dataset, sources, scratch
        self._n, self._total = size[0], size[2]
        self._others = method.potential.part(range(1, method.potential.n_members))
        self.energy, self.features = np.zeros(self._n), np.zeros((self._n, len(NAMES)))
        self.n_known = 0
        self.cpu_s = {"first_member": 0.0, "cheap_score": 0.0, "other_members": 0.0, "decide": 0.0}

    def _pieces(self, columns: Collection[str] | None = ()) -> Generator[Piece]:
        first = atom = 0
        with closing(read_pieces(self._sources, columns)) as parts:
            for part in parts:
                yield Piece(part, first, atom)
                first, atom = first + len(part), atom + int(part.ptr[-1])

    def ask_first(self) -> None:
        """Ask the first member about every candidate."""
        if not self._n:
            return
        start = time.process_time()
        cheap = CheapScore.fit(self._method.member, _trained_on(self._dataset))
        self.n_known = cheap.n_known
        self.cpu_s["cheap_score"] += time.process_time() - start
        for piece in track(self._pieces(), self._total, "asking one member (pieces)"):
            start = time.process_time()
            said = self._method.member.predict(piece.structures)
            then = time.process_time()
            distances = cheap.distances(piece.structures, said)
            rows = slice(piece.first, piece.first + len(piece.structures))
            self.energy[rows], self.features[rows] = said.energy, cheap.features(piece.structures, said, distances)
            self._scratch.write(piece.atom, np.column_stack([said.energies, said.forces, distances]))
            self.cpu_s["first_member"] += then - start
            self.cpu_s["cheap_score"] += time.process_time() - then

    def full_scores(self, wanted: Array) -> Array:
        """Ask the other members about candidates, by ascending row; return their full scores (m,) eV/Å."""
        start, scores = time.process_time(), []
        for part, rows, atoms in self._batches(wanted):
            scores.append(self._ask_others(part, rows, atoms))
        self.cpu_s["other_members"] += time.process_time() - start
        return np.concatenate([np.zeros(0), *scores])

    def _batches(self, wanted: Array) -> Iterator[tuple[Structures, Array, Array]]:
        """Yield wanted structures in batches that are worth an evaluation: structures, rows, first atoms."""
        held: list[tuple[Structures, Array, Array]] = []
        n = n_atoms = 0
        for piece in self._pieces():
            low, high = np.searchsorted(wanted, [piece.first, piece.first + len(piece.structures)])
            rows = wanted[low:high]
            if not len(rows):
                continue
            part = piece.structures[rows - piece.first]
            if held and (n + len(part) > PIECE_STRUCTURES or n_atoms + int(part.ptr[-1]) > PIECE_ATOMS):
                yield _join(held)
                held, n, n_atoms = [], 0, 0
            held.append((part, rows, piece.atom + piece.structures.ptr[rows - piece.first]))
            n, n_atoms = n + len(part), n_atoms + int(part.ptr[-1])
        if held:
            yield _join(held)

    def _ask_others(self, part: Structures, rows: Array, atoms: Array) -> Array:
        m, said = self._method.potential.n_members, self._others.predict(part)
        spans = list(zip(atoms, atoms + part.n_atoms, strict=True))
        first = np.concatenate([self._scratch.read(int(low), int(high)) for low, high in spans])
        forces, raw = joined_forces(first[:, 1:4], said.forces, said.uncertainty["forces"][:, 0], m)
        sigma = self._sigma(raw, part.atomic_numbers)
        energies = (first[:, 0] + (m - 1) * said.energies) / m
        after = np.column_stack([energies, forces, sigma])
        for low, start, end in zip(atoms, part.ptr[:-1], part.ptr[1:], strict=True):
            self._scratch.write(int(low), after[start:end])
        self.energy[rows] = joined(self.energy[rows], said.energy, said.uncertainty["energy"], m)[0]
        worst: Array = structure_max(sigma, part.ptr) / _COMPONENT
        return worst

    def _sigma(self, raw: Array, atomic_numbers: Array) -> Array:
        """Return calibrated standard deviations; raw ones that are no numbers stay so."""
        if self._method.calibration is None:
            raise ModelError("The 'ensemble' method is not calibrated; fit it again (fit_uncertainty).")
        out, finite = np.full(len(raw), np.nan), np.isfinite(raw)
        out[finite] = self._method.calibration(raw[finite], atomic_numbers[finite])
        return out

    def said(self, verdict: Verdict) -> Iterator[tuple[Structures, dict[str, Array]]]:
        """Yield the pool in pieces with what is said of it; estimates where not all members were asked."""
        for piece in self._pieces(None):
            part, rows = piece.structures, slice(piece.first, piece.first + len(piece.structures))
            values = self._scratch.read(piece.atom, piece.atom + int(part.ptr[-1]))
            full, sigma = verdict.full[rows], values[:, 4]
            # One number is known of these structures; the atoms get it by their distance, the farthest atom the whole.
            share = _relative(sigma, part)
            of_atom = part.structure_of_atom
            estimate = _COMPONENT * share * np.where(full, 0.0, verdict.estimate[rows])[of_atom]
            sigma = np.where(full[of_atom], sigma, estimate)
            yield (
                part.with_columns(scoring__escalated=full),
                {
                    "energy": self.energy[rows],
                    "energies": values[:, 0],
                    "forces": values[:, 1:4],
                    "forces_uncertainty": np.repeat(sigma[:, None], 3, axis=1),
                },
            )


def _limits(metrics: Path | None, sources: list[Path], method: str) -> list[float] | None:
    """Return up to which score the certificate of the iteration before accepts, one for each sampler of the pool."""
    if metrics is None:
        return None
    names: set[str] = set()
    with closing(read_pieces(sources, (_SAMPLER,))) as parts:
        for part in parts:
            names.update(part.text(_SAMPLER))
    # Where the cascade gives up scores are full ones, and then it did not matter what was accepted.
    limits = accepted_up_to(metrics, sorted(names), method, ADAPTIVE).limits
    return None if limits is None else [float(limit) for limit in limits]


def _trained_on(dataset: Path) -> Structures:
    """Return the structures of a dataset that the members were trained on; all where it has no splits."""
    known = read_structures(dataset)
    rows = np.array([split == "train" for split in known.text("origin/split")], bool)
    return known[rows] if rows.any() else known


def _relative(values: Array, part: Structures) -> Array:
    """Return values (N,) by the largest of the structure; ones where that is zero."""
    largest = structure_max(values, part.ptr)[part.structure_of_atom]
    return np.divide(values, largest, out=np.ones(len(values)), where=largest > 0)


def _join(held: list[tuple[Structures, Array, Array]]) -> tuple[Structures, Array, Array]:
    parts, rows, atoms = zip(*held, strict=True)
    return Structures.concatenate(parts), np.concatenate(rows), np.concatenate(atoms)
