"""Train a group of the ensemble's members on the labels so far."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dubito.config.model import ModelConfig
from dubito.config.training import TrainingConfig
from dubito.core.errors import DataError, ModelError
from dubito.core.hashing import hash_file, hash_json
from dubito.core.logs import get_logger
from dubito.core.provenance import describe
from dubito.core.random import seed_for
from dubito.data.device import choose_device
from dubito.data.statistics import fit_statistics
from dubito.data.store import read_structures
from dubito.data.structures import Structures
from dubito.model.artifact import load_potential, save_potential
from dubito.model.files import hash_potential, read_metadata
from dubito.model.potential import Potential
from dubito.training.checkpoint import has_checkpoint
from dubito.training.history import write_history
from dubito.training.loop import Trainer

log = get_logger(__name__)

# After each batch this stage looks whether a signal asked it to stop.
CHECKS_INTERRUPTS = True


def run(
    *,
    dataset: Path,
    previous: Path | None,
    output: Path,
    history: Path,
    state: Path,
    model: ModelConfig,
    training: TrainingConfig,
    allow_model_labels: bool,
    members: list[int],
    seed: int,
    iteration: int,
    threads: int,
    device: str = "cpu",
    gpus: int = 0,
    stage: int = 0,
) -> str:
    """Train ``members`` and write their weights and history.

    Parameters
    ----------
    previous : the last iteration's ensemble, to start from when ``training.warm_start``
    state : folder of the checkpoint; survives a killed job
    members : numbers of the members trained in this job
    device, gpus : where it is trained, see :func:`dubito.data.device.choose_device`
    stage : version of this stage; a checkpoint of another version is not taken up

    Raises
    ------
    DataError
        When the dataset lacks labels or a split, or holds model-made labels that are not allowed.
    """
    torch.set_num_threads(threads)
    # Chosen first: a GPU that is missing should cost nothing but the message.
    where = choose_device(device, gpus)
    structures = read_structures(dataset)
    structures.require_labels(str(dataset))
    if not allow_model_labels:
        structures.refuse_model_labels(str(dataset))
    _refuse_ambiguous(structures, dataset)
    train, valid = _split(structures, dataset)
    potential = _start(previous if training.warm_start else None, train, model, members, seed).to(where)
    recipe = training.model_dump(exclude={"checkpoint_every_epochs", "members_per_job", "n_members"})
    learnt_from = [_content(structures), model.model_dump(), recipe, members, seed, iteration, stage]
    fingerprint = _fingerprint(learnt_from, previous if training.warm_start else None, state)
    trainer = Trainer(
        potential,
        train,
        valid,
        training,
        seed=seed_for(seed, "training", iteration),
        members=members,
        folder=state,
        fingerprint=fingerprint,
    )
    trainer.on_epoch = _log_epoch
    epochs = trainer.run()
    write_history(history, epochs)
    inputs = {"dataset": dataset} | ({"previous": previous} if previous else {})
    save_potential(output, potential, provenance=describe(inputs, iteration=iteration, seed=seed), members=members)
    best = [min(e.valid_force_rmse_ev_per_angstrom for e in epochs if e.member == member) for member in members]
    return (
        f"{len(members)} members, {len(train)} + {len(valid)} structures, {trainer.epoch} epochs, "
        f"validation force RMSE {1e3 * float(np.mean(best)):.0f} meV/Å"
    )


def _fingerprint(learnt_from: list[Any], previous: Path | None, state: Path) -> str:
    """Hash all that the weights follow from; the previous ones by content, since a file made again has other bytes.

    Checkpoints written before that have the hash of the bytes, and are taken up as long as it holds.
    """
    if previous is None:
        return hash_json([*learnt_from, None])
    by_bytes = hash_json([*learnt_from, hash_file(previous)])
    return by_bytes if has_checkpoint(state, by_bytes) else hash_json([*learnt_from, hash_potential(previous)])


def _content(structures: Structures) -> str:
    """Hash what is learnt from: structures, their order and split, and the labels themselves."""
    digest = hashlib.sha256("".join([*structures.ids, *structures.text("origin/split")]).encode())
    digest.update(structures.energy.astype("<f8").tobytes())
    digest.update(structures.forces.astype("<f8").tobytes())
    return digest.hexdigest()


def _refuse_ambiguous(structures: Structures, dataset: Path) -> None:
    """The network sees neither charge nor spin: one composition may not come with two of them."""
    spins: dict[bytes, set[tuple[int, int]]] = {}
    for i, (a, b) in enumerate(zip(structures.ptr[:-1], structures.ptr[1:], strict=True)):
        key = np.sort(structures.atomic_numbers[a:b]).tobytes()
        spins.setdefault(key, set()).add((int(structures.charge[i]), int(structures.multiplicity[i])))
    mixed = [found for found in spins.values() if len(found) > 1]
    if mixed:
        raise DataError(
            f"{dataset} holds one composition with several (charge, multiplicity): {sorted(mixed[0])}. The network "
            "sees neither, so it can't tell their energies apart. Run one campaign for each."
        )


def _split(structures: Structures, dataset: Path) -> tuple[Structures, Structures]:
    split = np.array(structures.text("origin/split"))
    train, valid = structures[split == "train"], structures[split == "valid"]
    if not len(train) or not len(valid):
        raise DataError(
            f"{dataset} has {len(train)} training and {len(valid)} validation structures; each must have one at "
            "least. Label more structures (data.initial.n_structures)."
        )
    return train, valid


def _start(previous: Path | None, train: Structures, model: ModelConfig, members: list[int], seed: int) -> Potential:
    """Return a fresh potential, or the previous one's members when it fits."""
    if previous is not None:
        potential = _warm(previous, train, model, members)
        if potential is not None:
            return potential
    fresh = Potential(model, fit_statistics(train, model.r_max_angstrom), len(members))
    fresh.initialise(seed, members)
    return fresh


def _warm(previous: Path, train: Structures, model: ModelConfig, members: list[int]) -> Potential | None:
    """Return the previous weights with their statistics (with others they would mean something else)."""
    metadata = read_metadata(previous)
    if ModelConfig.model_validate(metadata["model"]) != model:
        log.warning("model settings changed since %s; training starts from new weights", previous)
        return None
    missing = {int(z) for z in train.atomic_numbers} - set(metadata["statistics"]["species"])
    if missing or not set(members) <= set(metadata["members"]):
        log.warning("%s lacks elements %s or members; training starts from new weights", previous, missing)
        return None
    old = load_potential(previous)
    rows = [metadata["members"].index(member) for member in members]
    potential = Potential(model, old.statistics, len(members))
    weights = dict(old.named_parameters())
    for name, parameter in potential.named_parameters():
        if name not in weights:
            raise ModelError(f"{previous} lacks the weights '{name}'.")
        parameter.data.copy_(weights[name].data[rows])
    return potential


def _log_epoch(trainer: Trainer) -> None:
    if trainer.epoch % 10 == 0 or trainer.epoch == trainer.n_epochs:
        last = trainer.history[-len(trainer.members) :]
        force = np.mean([e.valid_force_rmse_ev_per_angstrom for e in last])
        log.info("epoch %d of %d: validation force RMSE %.4f eV/Å", trainer.epoch, trainer.n_epochs, force)
