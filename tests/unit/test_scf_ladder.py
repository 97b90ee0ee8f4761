"""The SCF ladder: what stops early, what it starts the next rung from, and that no label pays for it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubito.config.label_noise import CONVERGENCE_NOISE, GRID_NOISE, force_noise
from dubito.config.labelling import PyscfConfig
from dubito.core.hashing import hash_json
from dubito.data.structures import Structures
from dubito.labelling.base import Label
from dubito.labelling.cache import Failure, LabelCache
from dubito.labelling.early_abort import NOT_FINITE, PATIENCE, STALLED, Watch, patience_for, watched
from dubito.labelling.pyscf_labeller import PyscfLabeller
from dubito.labelling.scf_ladder import LADDER, climb, second_order
from dubito.labelling.service import label_structures
from dubito.labelling.stability import settled
from dubito.testing.structures import AMMONIA, WATER, rattled

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "labelling.json"
SMALL = {"basis": "sto-3g", "grid_level": 2}
CARBON = Structures.build([[6, 6]], [[[0, 0, 0], [0, 0, 1.6]]])
TORN = Structures.build([[8, 1, 1]], [[*WATER[:2].tolist(), (3.5 * WATER[2] - 2.5 * WATER[0]).tolist()]])


def labeller(**settings: Any) -> PyscfLabeller:
    return PyscfLabeller(PyscfConfig(**{**SMALL, **settings}))


def fed(watch: Watch, gradients: list[float], energy: float = -1.0) -> str:
    """Feed a watch until it stops."""
    for gradient in gradients:
        watch.see(energy, gradient)
        if watch.reason:
            break
    return watch.code


# --- the watch ----------------------------------------------------------------------------------


def test_a_gradient_that_stalls_is_stopped_and_one_that_falls_is_not() -> None:
    assert fed(Watch(patience=5), [1.0] * 20) == f"{STALLED}@6"
    assert fed(Watch(patience=5), [0.8**i for i in range(100)]) == ""
    sinking = Watch(patience=5)
    for cycle in range(50):
        sinking.see(-0.01 * cycle, 1.0)
    assert sinking.reason == "", "the energy falls"
    assert fed(Watch(), [1.0] * 500) == "", "without patience given there is no end to it"


def test_progress_starts_the_count_again() -> None:
    wandering = [1.0] * 4 + [0.5] + [1.0] * 4 + [0.2] + [3.0] * 4 + [1e-3]
    assert fed(Watch(patience=5), wandering) == ""
    assert fed(Watch(patience=5), [*wandering, *[1.0] * 5]) == f"{STALLED}@20"
    assert fed(Watch(patience=5), [1.0, 0.99, 0.98, 0.97, 0.96, 0.95]) == f"{STALLED}@6", "creeping is no progress"


@pytest.mark.parametrize(("energy", "gradient"), [(math.nan, 1.0), (-math.inf, 1.0), (-1.0, math.nan)])
def test_what_is_not_finite_is_stopped_at_once(energy: float, gradient: float) -> None:
    watch = Watch()
    watch.see(energy, gradient)
    assert watch.reason == NOT_FINITE


def test_a_converged_cycle_is_never_stopped() -> None:
    watch = Watch(patience=1)
    watch.see(-1.0, 1e-6)
    watch.see(-1.0, 1e-6, converged=True)
    assert watch.reason == ""


def test_who_allows_more_cycles_gets_more_patience() -> None:
    assert patience_for(PyscfConfig().max_cycle) == patience_for(10) == PATIENCE
    assert patience_for(300) == 150


def test_an_scf_that_is_given_up_leaves_its_orbitals_of_lowest_energy() -> None:
    dft = labeller()
    scf, energies = dft._mean_field(dft._molecule(TORN)), []
    scf.max_cycle = 30

    class Spying(Watch):
        def see(self, energy: float, gradient: float, *, converged: bool = False) -> None:
            energies.append(energy)
            super().see(energy, gradient, converged=converged)

    watched(scf, scf.kernel, Spying(patience=12))
    assert not scf.converged
    assert scf.callback is None
    assert scf.e_tot == min(energies) < energies[-1]
    assert scf.energy_tot(scf.make_rdm1()) == pytest.approx(min(energies), abs=1e-8)


# --- labels -------------------------------------------------------------------------------------


def displaced(numbers: list[int], positions: Any, scale: float, seed: int) -> Structures:
    rng = np.random.default_rng(seed)
    return Structures.build([numbers], [positions + rng.normal(scale=scale, size=np.shape(positions))])


def ethanol() -> tuple[list[int], Any]:
    build = pytest.importorskip("ase.build")
    atoms = build.molecule("CH3CH2OH")
    return atoms.numbers.tolist(), atoms.positions


def ordinary() -> dict[str, Structures]:
    """Return geometries that plain DIIS converges: displaced, stretched, open-shell."""
    molecules = {"ammonia": ([7, 1, 1, 1], AMMONIA), "water": ([8, 1, 1], WATER), "ethanol": ethanol()}
    out = {}
    for name, (numbers, positions) in molecules.items():
        scales = (0.1,) if name == "ethanol" else (0.1, 0.3)
        out |= {f"{name} displaced {s}": displaced(numbers, positions, s, seed=1) for s in scales}
        out |= {
            f"{name} stretched {f}": Structures.build([numbers], [positions * f]) for f in (1.3, 1.6)[: len(scales)]
        }
    out["oxygen"] = Structures.build([[8, 8]], [[[0, 0, 0], [0, 0, 1.3]]], multiplicity=3)
    out["nitrogen stretched"] = Structures.build([[7, 7]], [[[0, 0, 0], [0, 0, 2.0]]])
    return out


def test_where_plain_diis_converges_the_label_does_not_know_of_the_abort() -> None:
    with_abort, without = labeller(early_abort=True), labeller(early_abort=False)
    for name, one in ordinary().items():
        label, plain = with_abort.label(one), without.label(one)
        assert plain.attempts == label.attempts == 1, name
        assert label.energy == pytest.approx(plain.energy, abs=1e-7), name
        np.testing.assert_allclose(label.forces, plain.forces, atol=1e-6, err_msg=name)
        assert label.stopped == ""


def test_a_hopeless_scf_is_stopped_and_recorded_and_costs_no_label() -> None:
    label, patient = labeller().label(CARBON), labeller(early_abort=False).label(CARBON)
    assert label.attempts == patient.attempts == 2
    assert patient.stopped in ("", "unstable:1")
    rung, code = label.stopped.split()[0].split(":")
    reason, cycle = code.split("@")
    assert (rung, reason) == ("diis", STALLED)
    assert PATIENCE < int(cycle) < PyscfConfig().max_cycle
    assert label.energy == pytest.approx(patient.energy, abs=1e-5)


def test_torn_molecules_are_labelled_in_their_ground_state() -> None:
    """Second-order steps from the last, oscillating cycle may end in an excited state, electronvolts above.

    Whether they do depends on the machine's rounding, so the label is compared with the best of several starts.
    """
    dft = labeller()
    label = dft.label(TORN)
    found = []
    for guess in ("minao", "atom", "huckel"):
        newton = dft._mean_field(dft._molecule(TORN)).newton()
        found.append(newton.kernel(newton.get_init_guess(key=guess)))
    assert label.energy < min(found) * 27.211386 + 0.05


def test_an_scf_that_is_not_finite_goes_on_with_a_fresh_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyscf.dft import rks

    honest, calls = rks.energy_elec, []

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        total, coulomb = honest(*args, **kwargs)
        return (math.nan, coulomb) if len(calls) == 2 else (total, coulomb)

    monkeypatch.setattr("pyscf.dft.rks.RKS.energy_elec", broken)
    label = labeller().label(rattled(1, molecules="ammonia"))
    assert label.stopped == "diis:not_finite@1"
    assert label.attempts == 3
    monkeypatch.undo()
    assert label.energy == pytest.approx(labeller().label(rattled(1, molecules="ammonia")).energy, abs=1e-5)


def test_what_a_later_rung_returns_is_stable() -> None:
    """Second-order steps may end on a saddle point, as they do for this molecule on some machines."""
    dft = labeller()

    def make() -> Any:
        return dft._mean_field(dft._molecule(CARBON))

    found = climb(make, dft.config.max_cycle)
    assert found.attempts > 1
    assert settled(found.scf, make, lambda scf: second_order(scf, 80)) == (found.scf, 0)


class Hilly:
    """A calculation whose solutions lie at the energies given; each but the last is unstable."""

    def __init__(self, energies: list[float]) -> None:
        self.energies, self.mo_coeff, self.mo_occ = energies, 0, "occupations"

    @property
    def e_tot(self) -> float:
        return self.energies[self.mo_coeff]

    def stability(self, *, return_status: bool) -> tuple[int, None, bool, None]:
        return self.mo_coeff + 1, None, self.mo_coeff + 1 == len(self.energies), None


@pytest.mark.parametrize(
    ("energies", "steps"), [([0.0], 0), ([0.0, -1.0], 1), ([0.0, -1.0, -2.0], 2), ([0.0, 0.0, -1.0], 0)]
)
def test_a_saddle_point_is_followed_down(energies: list[float], steps: int) -> None:
    found, taken = settled(Hilly(energies), lambda: Hilly(energies), lambda scf: True)
    assert (found.e_tot, taken) == (energies[steps], steps)
    lost, taken = settled(Hilly(energies), lambda: Hilly(energies), lambda scf: False)
    assert (lost.e_tot, taken) == (0.0, 0), "what does not converge again changes nothing"


def test_steps_down_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dubito.labelling.scf_ladder.settled", lambda scf, make, go_on: (scf, 2))
    assert labeller(max_cycle=3).label(rattled(1, molecules="ammonia")).stopped == "unstable:2"


def test_fractional_occupations_rescue_what_the_rungs_before_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dubito.labelling.scf_ladder._damped", lambda make: None)
    monkeypatch.setattr("dubito.labelling.early_abort.Watch.__call__", lambda self, state: None)
    label, usual = labeller(max_cycle=5).label(rattled(1, molecules="ammonia")), labeller()
    assert label.attempts == 4
    assert label.energy == pytest.approx(usual.label(rattled(1, molecules="ammonia")).energy, abs=1e-5)


@pytest.mark.parametrize("error", [np.linalg.LinAlgError("singular"), ValueError("array must not contain infs")])
def test_a_rung_that_breaks_leads_to_the_next(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    honest, calls = climb.__globals__["watched"], []

    def breaking(scf: Any, start: Any, watch: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise error
        honest(scf, start, watch)

    monkeypatch.setattr("dubito.labelling.scf_ladder.watched", breaking)
    label = labeller().label(rattled(1, molecules="ammonia"))
    assert label.attempts == 3
    assert label.stopped == "diis:broken@0"


def test_what_plain_diis_finds_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dubito.labelling.scf_ladder.settled", None)
    assert labeller().label(rattled(1, molecules="ammonia")).attempts == 1


# --- agreement with a cold, tight SCF ------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1], ids=["ammonia", "water"])
def test_production_labels_agree_with_a_tight_scf_of_the_same_level(number: int) -> None:
    one = rattled(2, displacement=0.1)[number]
    production = PyscfLabeller(PyscfConfig()).label(one)
    tight = PyscfLabeller(PyscfConfig(conv_tol_hartree=1e-12)).label(one)
    assert abs(production.energy - tight.energy) < 1e-4
    assert np.abs(production.forces - tight.forces).max() < 1e-3


def test_the_noise_of_coarse_settings_is_recorded_and_said(caplog: pytest.LogCaptureFixture) -> None:
    label = labeller(grid_level=1, conv_tol_hartree=1e-6).label(rattled(1, molecules="ammonia"))
    assert label.force_noise == pytest.approx(np.hypot(GRID_NOISE[1], CONVERGENCE_NOISE[1e-6]))
    assert "leaves an error of about 4.4 meV/Å (rms) in forces" in caplog.text
    caplog.clear()
    usual = force_noise(PyscfConfig())
    assert usual is not None
    assert usual < 1e-3
    labeller(grid_level=3)
    assert caplog.text == ""
    assert force_noise(PyscfConfig(conv_tol_hartree=1e-4)) is None
    assert force_noise(PyscfConfig(grid_level=9, conv_tol_hartree=1e-12)) == pytest.approx(GRID_NOISE[4], rel=0.01)


@pytest.mark.parametrize("table", [GRID_NOISE, CONVERGENCE_NOISE])
def test_recorded_noise_is_what_was_measured(table: dict[float, float]) -> None:
    measured = json.loads(MEASURED.read_text())["numerics"]
    word = "grid" if table is GRID_NOISE else "conv"
    for key, recorded in table.items():
        rms = max(rows[f"{word} {key:g}"]["rms_force_error_mev_per_angstrom"] for rows in measured.values())
        assert 1e-3 * rms <= 1.05 * recorded, "raise the figure in dubito.config.label_noise"


# --- what is remembered -------------------------------------------------------------------------


def test_new_options_leave_the_hash_of_settings_alone() -> None:
    """The hash is that of version 0.1.0: labels bought then are still good. Failures are tried again with new rungs."""
    usual, patient = PyscfLabeller(PyscfConfig()), PyscfLabeller(PyscfConfig(early_abort=False))
    assert usual.settings_hash == patient.settings_hash == "18a106fcd4f455d0"
    assert usual.effort()["ladder"] == LADDER
    assert hash_json(patient.effort()) != hash_json(usual.effort()), "tried again when SCFs are no longer stopped"


def test_only_labels_from_later_rungs_of_the_old_ladder_are_made_again(tmp_path: Path) -> None:
    dft, three = labeller(), rattled(3, molecules="ammonia")
    cache = LabelCache(tmp_path, dft.settings())
    fake = Label(energy=-1.0, forces=np.zeros((4, 3)), method="m", code_version="c")
    for one, attempts, ladder in zip(three, (1, 2, 2), (0, 0, LADDER), strict=True):
        cache.put(one.ids[0], replace(fake, attempts=attempts, ladder=ladder))
    labelled, report = label_structures(three, dft, cache)
    assert report["reused"] == 2
    assert labelled.energy[0] == labelled.energy[2] == -1.0
    assert labelled.energy[1] < -1000
    remade = cache.get(three[1].ids[0])
    assert isinstance(remade, Label)
    assert (remade.attempts, remade.ladder) == (1, LADDER)


def test_entries_written_before_these_fields_are_read(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path, {"a": 1})
    cache.put("x", Label(energy=-1.0, forces=np.zeros((1, 3)), method="m", code_version="c"))
    entry = json.loads(cache.path("x").read_text())
    for key in ("stopped", "ladder", "force_noise"):
        del entry["content"][key]
    entry["check"] = hash_json(entry["content"])
    cache.path("x").write_text(json.dumps(entry))
    old = cache.get("x")
    assert isinstance(old, Label)
    assert not isinstance(old, Failure)
    assert (old.stopped, old.ladder, old.force_noise) == ("", 0, None)
