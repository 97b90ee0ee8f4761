"""The training loop: it learns, resumes to the same weights, and survives what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dubito.config.model import ModelConfig
from dubito.config.training import TrainingConfig
from dubito.config.uncertainty import UncertaintyConfig
from dubito.core.errors import DataError, ModelError
from dubito.data.statistics import fit_statistics
from dubito.data.store import read_structures, write_structures
from dubito.data.structures import Structures
from dubito.model.potential import Potential
from dubito.stages import fit_uncertainty, merge_ensemble, predict_structures, train_ensemble
from dubito.testing.structures import rattled, toy_labels
from dubito.training.loop import Trainer
from dubito.training.optimizer import Adam, FlatParameters
from dubito.training.schedule import Schedule

MODEL = ModelConfig(n_features=8, n_layers=2, r_max_angstrom=3.5)


class Killed(Exception):
    """Stands for SIGKILL after an epoch."""


def trainer(
    folder: Path | None = None, *, members: tuple[int, ...] = (0, 1), train: Structures | None = None, **options: float
) -> Trainer:
    torch.set_num_threads(1)
    labels = train if train is not None else toy_labels(rattled(20, seed=1))
    potential = Potential(MODEL, fit_statistics(labels, 3.5), len(members))
    potential.initialise(7, list(members))
    config = TrainingConfig(**({"max_epochs": 12, "checkpoint_every_epochs": 4} | options))  # type: ignore[arg-type]
    valid = toy_labels(rattled(6, seed=2))
    return Trainer(potential, labels, valid, config, seed=3, members=list(members), folder=folder, fingerprint="same")


def test_it_learns() -> None:
    history = trainer(max_epochs=60).run()
    first, last = history[0], history[-1]
    assert last.valid_force_rmse_ev_per_angstrom < 0.3 * first.valid_force_rmse_ev_per_angstrom


@pytest.mark.parametrize("killed_after", [4, 6, 11])
def test_killed_and_resumed_ends_with_the_same_weights(tmp_path: Path, killed_after: int) -> None:
    whole = trainer()
    whole.run()
    broken = trainer(tmp_path)

    def kill(t: Trainer) -> None:
        if t.epoch == killed_after:
            raise Killed

    broken.on_epoch = kill
    with pytest.raises(Killed):
        broken.run()
    epochs: list[int] = []
    resumed = trainer(tmp_path)
    resumed.on_epoch = lambda t: epochs.append(t.epoch)
    history = resumed.run()
    # At most the checkpoint interval is repeated.
    assert epochs[0] == 4 * (killed_after // 4) + 1
    assert torch.equal(resumed.parameters.rows, whole.parameters.rows)
    assert [e.valid_loss for e in history] == [e.valid_loss for e in whole.history]


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first = trainer(tmp_path)
    first.run()
    again = trainer(tmp_path)
    again.on_epoch = lambda t: pytest.fail("an epoch was repeated")
    again.run()
    assert torch.equal(again.parameters.rows, first.parameters.rows)


def test_damaged_or_foreign_checkpoint_starts_anew(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    assert len(trainer(tmp_path).run()) == 24
    other = trainer(tmp_path)
    other.fingerprint = "other"
    epochs: list[int] = []
    other.on_epoch = lambda t: epochs.append(t.epoch)
    other.run()
    assert epochs[0] == 1


def test_members_do_not_depend_on_their_group() -> None:
    together = trainer(members=(0, 1, 2))
    together.run()
    alone = trainer(members=(1,))
    alone.run()
    torch.testing.assert_close(together.parameters.rows[1], alone.parameters.rows[0], atol=2e-4, rtol=2e-3)
    assert (together.parameters.rows[0] - together.parameters.rows[1]).abs().max() > 0.1


def test_a_member_that_breaks_is_taken_back_and_the_others_are_untouched() -> None:
    calm = trainer(max_epochs=3)
    calm.run()
    broken = trainer(max_epochs=3)
    original = broken.parameters.differentiate
    count = {"calls": 0}

    def poisoned(loss: torch.Tensor) -> None:
        original(loss)
        count["calls"] += 1
        if count["calls"] == 3:
            broken.parameters.gradient[1, 5] = float("nan")

    broken.parameters.differentiate = poisoned  # type: ignore[method-assign]
    broken.run()
    assert broken.rollbacks.tolist() == [0, 1]
    assert torch.isfinite(broken.parameters.rows).all()
    assert broken.schedule.rate[1] == pytest.approx(0.5 * float(calm.schedule.rate[1]))
    assert torch.equal(broken.parameters.rows[0], calm.parameters.rows[0])
    assert torch.equal(broken.average[0], calm.average[0])


def test_hopeless_training_says_so() -> None:
    hopeless = trainer(max_epochs=5)
    original = hopeless.parameters.differentiate

    def poisoned(loss: torch.Tensor) -> None:
        original(loss)
        hopeless.parameters.gradient.fill_(float("nan"))

    hopeless.parameters.differentiate = poisoned  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="learning_rate"):
        hopeless.run()


def test_no_ensemble_is_written_with_an_untrained_member() -> None:
    """Its mean would be wrong, and its spread would look like doubt."""
    lame = trainer(max_epochs=8)
    original = lame.parameters.differentiate

    def poisoned(loss: torch.Tensor) -> None:
        original(loss)
        lame.parameters.gradient[1] = float("nan")

    lame.parameters.differentiate = poisoned  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"Members \[1\]"):
        lame.run()


def test_adam_equals_torch() -> None:
    potential = Potential(MODEL, fit_statistics(toy_labels(rattled(4)), 3.5), 2)
    potential.initialise(0, [0, 1])
    flat = FlatParameters(potential)
    ours = Adam(flat, amsgrad=True)
    reference = flat.rows.clone().requires_grad_()
    torchs = torch.optim.Adam([reference], lr=0.01, amsgrad=True)
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        flat.gradient.copy_(torch.randn(flat.rows.shape, generator=random))
        reference.grad = flat.gradient.clone()
        ours.step(torch.tensor([0.01, 0.01], dtype=torch.float64))
        torchs.step()
    torch.testing.assert_close(flat.rows, reference.detach(), atol=1e-6, rtol=1e-6)


def test_parameters_are_views_of_the_rows() -> None:
    potential = Potential(MODEL, fit_statistics(toy_labels(rattled(4)), 3.5), 2)
    potential.initialise(0, [0, 1])
    flat = FlatParameters(potential)
    flat.rows.zero_()
    assert all(float(p.detach().abs().max()) == 0.0 for p in potential.parameters())


def test_clipping_is_by_member() -> None:
    potential = Potential(MODEL, fit_statistics(toy_labels(rattled(4)), 3.5), 2)
    potential.initialise(0, [0, 1])
    flat = FlatParameters(potential)
    flat.gradient[0], flat.gradient[1] = 1.0, 1e-6
    before = flat.gradient[1].clone()
    flat.clip(1.0)
    assert float(torch.linalg.vector_norm(flat.gradient[0])) == pytest.approx(1.0, rel=1e-5)
    assert torch.equal(flat.gradient[1], before)


def test_plateau_and_early_stopping() -> None:
    config = TrainingConfig(plateau_patience_epochs=2, plateau_factor=0.1, early_stopping_epochs=5, learning_rate=0.01)
    schedule = Schedule(2, config, 100)
    for loss in (1.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        schedule.update(torch.tensor([loss, loss if loss == 1.0 else 0.5 / (1 + float(schedule.since_best[1]))]))
    assert not schedule.active[0]
    assert float(schedule.rate[0]) == pytest.approx(0.01 * 0.1**2)
    assert float(schedule.learning_rate()[0]) == 0.0


def test_cosine_falls_to_a_hundredth() -> None:
    schedule = Schedule(1, TrainingConfig(schedule="cosine", learning_rate=0.01), 10)
    rates = [float(schedule.learning_rate()[0])]
    for _ in range(10):
        schedule.update(torch.tensor([1.0]))
        rates.append(float(schedule.learning_rate()[0]))
    assert rates[0] == pytest.approx(0.01)
    assert rates[5] == pytest.approx(0.01 * (0.01 + 0.99 / 2))
    assert rates[-1] == pytest.approx(1e-4)
    assert np.all(np.diff(rates) < 0)


def dataset(path: Path, n: int = 16, *, kind: str = "reference") -> Path:
    split = np.array(["train"] * (n - 4) + ["valid"] * 4, dtype="S8")
    labels = toy_labels(rattled(n, seed=4)).with_columns(origin__split=split, provenance__kind=kind)
    write_structures(path, labels)
    return path


def stage(tmp_path: Path, members: list[int], name: str, **changes: object) -> str:
    arguments: dict[str, object] = {
        "dataset": tmp_path / "dataset.h5",
        "previous": None,
        "output": tmp_path / f"{name}.safetensors",
        "history": tmp_path / f"{name}.csv",
        "state": tmp_path / f"state_{name}",
        "model": MODEL,
        "training": TrainingConfig(max_epochs=4),
        "allow_model_labels": False,
        "members": members,
        "seed": 1,
        "iteration": 0,
        "threads": 1,
    }
    return train_ensemble.run(**(arguments | changes))  # type: ignore[arg-type]


def test_groups_merge_to_the_ensemble_trained_in_one_job(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    dataset(tmp_path / "dataset.h5")
    stage(tmp_path, [0, 1, 2], "all")
    stage(tmp_path, [0], "a")
    stage(tmp_path, [1, 2], "b")
    said = merge_ensemble.run(
        groups=[tmp_path / "b.safetensors", tmp_path / "a.safetensors"],
        histories=[tmp_path / "b.csv", tmp_path / "a.csv"],
        output=tmp_path / "ensemble.safetensors",
        history=tmp_path / "history.csv",
    )
    assert "3 members" in said
    one, joined = load_file(tmp_path / "all.safetensors"), load_file(tmp_path / "ensemble.safetensors")
    for name, weights in one.items():
        np.testing.assert_allclose(joined[name], weights, atol=1e-4, err_msg=name)
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 3


def test_warm_start_begins_where_the_last_iteration_ended(tmp_path: Path) -> None:
    dataset(tmp_path / "dataset.h5")
    stage(tmp_path, [0, 1], "first", training=TrainingConfig(max_epochs=60))
    previous = tmp_path / "first.safetensors"
    stage(tmp_path, [0, 1], "warm", previous=previous, training=TrainingConfig(max_epochs=1))
    stage(tmp_path, [0, 1], "cold", training=TrainingConfig(max_epochs=1))

    def loss(name: str) -> float:
        return float((tmp_path / f"{name}.csv").read_text().splitlines()[1].split(",")[4])

    assert loss("warm") < 0.3 * loss("cold")


def test_model_labels_are_refused_unless_allowed(tmp_path: Path) -> None:
    dataset(tmp_path / "dataset.h5", kind="model")
    with pytest.raises(DataError, match=r"data\.allow_model_labels"):
        stage(tmp_path, [0, 1], "refused")
    stage(tmp_path, [0, 1], "allowed", allow_model_labels=True)


def test_a_dataset_without_validation_is_refused(tmp_path: Path) -> None:
    write_structures(tmp_path / "dataset.h5", toy_labels(rattled(3)).with_columns(origin__split="train"))
    with pytest.raises(DataError, match="0 validation"):
        stage(tmp_path, [0, 1], "refused")


def test_energies_lose_their_shifts_in_double_precision() -> None:
    """With shifts of 1e5 eV float32 would round energies to 8 meV; the targets must not."""
    from dubito.training.loss import make_targets

    labels = toy_labels(rattled(20, seed=1, molecules="ammonia"))
    shifted = labels.with_columns(labels__energy=labels.energy + 1e5)
    targets = []
    for one in (labels, shifted):
        potential = Potential(MODEL, fit_statistics(one, 3.5), 1)
        targets.append(make_targets(one, potential).energy)
    torch.testing.assert_close(targets[0], targets[1], atol=1e-6, rtol=0)


def test_other_labels_of_the_same_structures_train_another_model(tmp_path: Path) -> None:
    """The checkpoint of a finished training must not be taken for that of a relabelled dataset."""
    dataset(tmp_path / "dataset.h5")
    stage(tmp_path, [0, 1], "one")
    labels = read_structures(tmp_path / "dataset.h5")
    write_structures(tmp_path / "dataset.h5", labels.with_columns(labels__forces=1.1 * labels.forces))
    stage(tmp_path, [0, 1], "two", state=tmp_path / "state_one")
    assert (tmp_path / "one.csv").read_text() != (tmp_path / "two.csv").read_text()
    stage(tmp_path, [0, 1], "three", state=tmp_path / "state_one", stage=99)
    stage(tmp_path, [0, 1], "four", state=tmp_path / "state_one", stage=99)
    assert (tmp_path / "three.csv").read_text() == (tmp_path / "four.csv").read_text(), "resumed, times and all"
    assert (tmp_path / "two.csv").read_text() != (tmp_path / "three.csv").read_text(), "trained anew"


def test_checkpoint_interval_and_grouping_do_not_retrain(tmp_path: Path) -> None:
    dataset(tmp_path / "dataset.h5")
    stage(tmp_path, [0, 1], "one")
    changed = TrainingConfig(max_epochs=4, checkpoint_every_epochs=3, members_per_job=2)
    stage(tmp_path, [0, 1], "two", state=tmp_path / "state_one", training=changed)
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "two.csv").read_text()


def test_one_composition_with_two_charges_is_refused(tmp_path: Path) -> None:
    labels = toy_labels(rattled(8, molecules="ammonia"))
    split = np.array(["train"] * 6 + ["valid"] * 2, dtype="S8")
    charged = replace(labels, charge=np.array([0] * 7 + [1], dtype="i4")).with_columns(origin__split=split)
    write_structures(tmp_path / "dataset.h5", charged)
    with pytest.raises(DataError, match="sees neither"):
        stage(tmp_path, [0, 1], "refused")


def test_test_structures_that_were_trained_on_are_noticed(tmp_path: Path) -> None:
    dataset(tmp_path / "dataset.h5")
    stage(tmp_path, [0, 1], "ensemble")
    ensemble, state = tmp_path / "ensemble.safetensors", tmp_path / "u.safetensors"
    fit_uncertainty.run(
        ensemble=ensemble,
        dataset=tmp_path / "dataset.h5",
        method="ensemble",
        uncertainty=UncertaintyConfig(),
        output=state,
        about=tmp_path / "u.json",
        seed=1,
        threads=1,
    )
    test = toy_labels(rattled(3, seed=99))
    leaking = Structures.concatenate([test, read_structures(tmp_path / "dataset.h5")[2]])
    for name, structures in (("good", test), ("leaking", leaking)):
        write_structures(tmp_path / f"{name}.h5", structures)
    where = {"ensemble": ensemble, "uncertainty": [state], "methods": ["ensemble"], "threads": 1}
    outputs = [tmp_path / "a.h5", tmp_path / "b.h5"]
    predict_structures.run(inputs=[tmp_path / "dataset.h5", tmp_path / "good.h5"], outputs=outputs, **where)
    with pytest.raises(DataError, match=r"1 structures of .*leaking"):
        predict_structures.run(inputs=[tmp_path / "dataset.h5", tmp_path / "leaking.h5"], outputs=outputs, **where)
