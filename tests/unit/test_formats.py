"""Files of others: units, keys, round trips, and the faults that must not pass silently."""

from __future__ import annotations

import gzip
import logging
import os
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from dubito.core.errors import DataError
from dubito.core.units import BOHR_ANGSTROM, HARTREE_EV, KCAL_PER_MOL_EV
from dubito.data.formats import from_ase, read_any, to_ase, write_extxyz
from dubito.data.store import write_structures
from dubito.data.structures import MODEL, REFERENCE, Structures
from dubito.testing.structures import crystal, rattled, toy_labels

BENCHMARK = Path(os.environ.get("DUBITO_BENCHMARK_DATA", Path(__file__).parents[3] / "shared" / "data"))


def water(energy_key: str = "REF_energy", forces_key: str = "REF_forces", **info: object) -> Atoms:
    atoms = Atoms("OH2", positions=[[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    atoms.info |= {energy_key: -2078.5, **info}
    atoms.arrays[forces_key] = np.array([[0, 0, 0.5], [0, 0.1, -0.25], [0, -0.1, -0.25]])
    return atoms


def write(path: Path, *images: Atoms) -> Path:
    ase.io.write(path, list(images), format="extxyz")
    return path


class TestRoundTrip:
    @pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.xyz.gz"])
    def test_extxyz_keeps_structures_labels_and_origin(self, tmp_path: Path, name: str) -> None:
        labelled = toy_labels(rattled(4, seed=1)).with_columns(
            origin__trajectory=["walk 1", "walk 1", "", "iter001_job0_walker2"],
            origin__parent=["1234567890e123456789012345678901", "0" * 32, "", "abc"],
            origin__split=["train", "valid", "train", ""],
            origin__iteration=[0, 1, -1, 2],
            provenance__kind=[REFERENCE, MODEL, REFERENCE, REFERENCE],
            provenance__method="pyscf PBE/def2-svp",
            provenance__settings_hash="1234e56789012345",
        )
        bare = crystal(1)
        given = Structures.concatenate([labelled, bare])
        write_extxyz(tmp_path / name, given)
        back = read_any(tmp_path / name)
        np.testing.assert_allclose(back.positions, given.positions, atol=6e-9)
        np.testing.assert_allclose(back.energy, given.energy, rtol=1e-13)
        np.testing.assert_allclose(back.forces, given.forces, atol=6e-9)
        np.testing.assert_allclose(back.cell, given.cell, atol=1e-12)
        np.testing.assert_array_equal(back.pbc, given.pbc)
        assert back.is_labelled.tolist() == [True] * 4 + [False]
        for path in (
            "origin/trajectory",
            "origin/parent",
            "origin/split",
            "provenance/method",
            "provenance/settings_hash",
        ):
            assert back.text(path) == given.text(path)
        assert back.text("provenance/kind") == [REFERENCE, MODEL, REFERENCE, REFERENCE, ""]
        assert back.column("origin/iteration").tolist() == [0, 1, -1, 2, -1]

    def test_charge_and_multiplicity_survive(self, tmp_path: Path) -> None:
        given = Structures.build([[8, 1], [8, 1]], [[[0, 0, 0], [0, 0, 1]]] * 2, charge=[-1, 0], multiplicity=[1, 2])
        write_extxyz(tmp_path / "a.xyz", given)
        back = read_any(tmp_path / "a.xyz", charge=5, multiplicity=7)
        assert back.ids == given.ids

    def test_memory_only(self) -> None:
        given = toy_labels(rattled(3))
        back = from_ase(to_ase(given))
        np.testing.assert_array_equal(back.positions, given.positions)
        np.testing.assert_array_equal(back.forces, given.forces)
        assert back.ids == given.ids

    def test_stress_survives(self, tmp_path: Path) -> None:
        given = toy_labels(crystal(2)).with_columns(labels__stress=np.arange(12.0).reshape(2, 6) / 7)
        write_extxyz(tmp_path / "a.xyz", given)
        np.testing.assert_allclose(
            read_any(tmp_path / "a.xyz").column("labels/stress"), given.column("labels/stress"), rtol=1e-12
        )

    def test_equal_structures_give_equal_bytes(self, tmp_path: Path) -> None:
        write_extxyz(tmp_path / "a.xyz.gz", toy_labels(rattled(2)))
        write_extxyz(tmp_path / "b.xyz.gz", toy_labels(rattled(2)))
        assert (tmp_path / "a.xyz.gz").read_bytes() == (tmp_path / "b.xyz.gz").read_bytes()

    def test_own_schema(self, tmp_path: Path) -> None:
        given = toy_labels(rattled(3))
        write_structures(tmp_path / "a.h5", given)
        assert read_any(tmp_path / "a.h5").ids == given.ids
        assert read_any(tmp_path / "a.h5", trajectory="t").text("origin/trajectory") == ["t"] * 3
        with pytest.raises(DataError, match="energy_key can't be given"):
            read_any(tmp_path / "a.h5", energy_key="REF_energy")


class TestLabels:
    def test_calculator_results(self, tmp_path: Path) -> None:
        atoms = Atoms("OH2", positions=water().positions)
        atoms.calc = SinglePointCalculator(atoms, energy=-3.0, forces=water().arrays["REF_forces"])
        back = read_any(write(tmp_path / "a.xyz", atoms))
        assert back.energy.tolist() == [-3.0]
        assert back.is_labelled.all()
        assert back.text("provenance/kind") == [REFERENCE]

    def test_ref_wins_over_calculator_results(self, tmp_path: Path) -> None:
        atoms = water()
        atoms.calc = SinglePointCalculator(atoms, energy=-3.0, forces=np.zeros((3, 3)))
        assert from_ase([atoms]).energy.tolist() == [-2078.5]

    @pytest.mark.parametrize(
        ("units", "energy", "force"),
        [
            ("eV, eV/Angstrom", 1.0, 1.0),
            ("kcal/mol, kcal/mol/Angstrom", KCAL_PER_MOL_EV, KCAL_PER_MOL_EV),
            ("kcal/mol", KCAL_PER_MOL_EV, KCAL_PER_MOL_EV),
            ("Hartree, Hartree/Bohr", HARTREE_EV, HARTREE_EV / BOHR_ANGSTROM),
            ("hartree", HARTREE_EV, HARTREE_EV),
        ],
    )
    def test_stated_units_are_honoured(self, tmp_path: Path, units: str, energy: float, force: float) -> None:
        back = read_any(write(tmp_path / "a.xyz", water(units=units)))
        assert back.energy[0] == pytest.approx(-2078.5 * energy, rel=1e-12)
        assert back.forces[0, 2] == pytest.approx(0.5 * force, rel=1e-7)

    def test_given_units_replace_stated_ones(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.xyz", water(units="eV"))
        assert read_any(path, units="kcal/mol").energy[0] == pytest.approx(-2078.5 * KCAL_PER_MOL_EV)

    @pytest.mark.parametrize("units", ["electronvolt", "eV, eV", "eV, eV/furlong", "eV, eV/A, eV/A^2", "a, b, c, d"])
    def test_unknown_units_name_file_and_unit(self, tmp_path: Path, units: str) -> None:
        path = write(tmp_path / "strange.xyz", water(units=units))
        with pytest.raises(DataError, match=r"strange\.xyz states its units as") as error:
            read_any(path)
        assert units in str(error.value)

    def test_named_keys(self, tmp_path: Path) -> None:
        atoms = water()
        atoms.info["MD17_energy"] = -1.0
        atoms.arrays["MD17_forces"] = np.full((3, 3), 0.25)
        path = write(tmp_path / "a.xyz", atoms)
        back = read_any(path, energy_key="MD17_energy")
        assert (back.energy[0], back.forces[0, 0]) == (-1.0, 0.25)

    def test_named_key_that_labels_nothing(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.xyz", water("dft_energy", "dft_forces"))
        with pytest.raises(DataError, match=r"a\.xyz: the key 'dft_enrgy'.*Did you mean 'dft_energy'"):
            read_any(path, energy_key="dft_enrgy")
        with pytest.raises(DataError, match=r"the key 'forces'.*labels nothing.*dft_forces"):
            read_any(path, energy_key="dft_energy", forces_key="forces")

    def test_unnamed_labels_are_not_guessed_but_pointed_at(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write(tmp_path / "a.xyz", water("dft_energy", "dft_forces"))
        with caplog.at_level(logging.WARNING, "dubito"):
            logging.getLogger("dubito").propagate = True
            back = read_any(path)
        assert not back.is_labelled.any()
        assert "dft_energy, dft_forces" in caplog.text

    def test_zero_energies(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"a\.xyz: all 2 energies are zero"):
            read_any(write(tmp_path / "a.xyz", water(REF_energy=0.0), water(REF_energy=0.0)))

    def test_zero_forces(self, tmp_path: Path) -> None:
        atoms = water()
        atoms.arrays["REF_forces"] *= 0
        with pytest.raises(DataError, match=r"a\.xyz: all forces are zero"):
            read_any(write(tmp_path / "a.xyz", atoms, atoms))

    def test_zero_force_of_a_lone_atom_is_a_label(self) -> None:
        atom = Atoms("H", positions=[[0, 0, 0]], info={"REF_energy": -13.6})
        atom.arrays["REF_forces"] = np.zeros((1, 3))
        assert from_ase([atom]).is_labelled.all()

    @pytest.mark.parametrize("what", ["energies", "forces"])
    def test_all_nan(self, what: str) -> None:
        atoms = water()
        if what == "energies":
            atoms.info["REF_energy"] = np.nan
        else:
            atoms.arrays["REF_forces"][:] = np.nan
        with pytest.raises(DataError, match=f"every one of its {what} is NaN"):
            from_ase([atoms, atoms])

    def test_some_nan_are_unlabelled_and_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        spoilt = water()
        spoilt.arrays["REF_forces"][1, 1] = np.nan
        with caplog.at_level(logging.INFO, "dubito"):
            logging.getLogger("dubito").propagate = True
            back = from_ase([water(), spoilt])
        assert back.is_labelled.tolist() == [True, False]
        assert "2 structures, 1 of them labelled" in caplog.text
        assert "1 structures have an energy but no forces" in caplog.text

    def test_wrong_shape(self) -> None:
        atoms = water()
        atoms.arrays["REF_forces"] = np.ones((3, 2))
        with pytest.raises(DataError, match=r"'REF_forces' has shape \(3, 2\), expected \(3, 3\)"):
            from_ase([atoms])


class TestBadFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            read_any(tmp_path / "no.xyz")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is a folder"):
            read_any(tmp_path)

    @pytest.mark.parametrize("name", ["a.xyz", "a.npz", "a.h5", "a.traj"])
    def test_empty(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=f"{name} is empty"):
            read_any(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.xyz", "a.npz", "a.h5", "a.cif", "a.nonsense", "a.xyz.gz"])
    def test_garbage(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("these are not atoms\n1 2 3\n")
        with pytest.raises(DataError, match=name):
            read_any(tmp_path / name)

    def test_truncated(self, tmp_path: Path) -> None:
        whole = write(tmp_path / "a.xyz", water()).read_text()
        (tmp_path / "a.xyz").write_text(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=r"a\.xyz"):
            read_any(tmp_path / "a.xyz")
        (tmp_path / "b.xyz.gz").write_bytes(gzip.compress(whole.encode())[:-20])
        with pytest.raises(DataError, match=r"b\.xyz\.gz"):
            read_any(tmp_path / "b.xyz.gz")

    def test_positions_that_are_not_numbers(self, tmp_path: Path) -> None:
        atoms = water()
        atoms.positions[1, 0] = np.nan
        with pytest.raises(DataError, match="structure 1 has positions"):
            read_any(write(tmp_path / "a.xyz", water(), atoms))

    def test_fractional_charge(self) -> None:
        with pytest.raises(DataError, match=r"the charge is 0\.5; expected a whole number"):
            from_ase([water(charge=0.5)])


class TestNpz:
    def save(self, path: Path, **arrays: object) -> Path:
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return path

    def arrays(self, names: tuple[str, str, str, str]) -> dict[str, object]:
        rng = np.random.default_rng(0)
        values = (np.array([8, 1, 1]), rng.normal(size=(4, 3, 3)), rng.normal(size=4), rng.normal(size=(4, 3, 3)))
        return dict(zip(names, values, strict=True))

    def test_rmd17_is_in_kcal_per_mol(self, tmp_path: Path) -> None:
        given = self.arrays(("nuclear_charges", "coords", "energies", "forces"))
        back = read_any(self.save(tmp_path / "rmd17.npz", **given), trajectory="md")
        np.testing.assert_allclose(back.energy, given["energies"] * np.float64(KCAL_PER_MOL_EV), rtol=1e-12)
        np.testing.assert_allclose(
            back.forces, (given["forces"] * np.float64(KCAL_PER_MOL_EV)).reshape(-1, 3), rtol=1e-12
        )
        np.testing.assert_array_equal(back.positions, np.reshape(given["coords"], (-1, 3)))
        assert back.text("origin/trajectory") == ["md"] * 4
        assert back.text("origin/source")[3] == "rmd17.npz[3]"

    def test_sgdml_states_its_units(self, tmp_path: Path) -> None:
        given = self.arrays(("z", "R", "E", "F"))
        back = read_any(self.save(tmp_path / "a.npz", **given, r_unit="bohr", e_unit=np.bytes_("hartree")))
        np.testing.assert_allclose(back.positions, np.reshape(given["R"], (-1, 3)) * BOHR_ANGSTROM)
        np.testing.assert_allclose(back.energy, given["E"] * np.float64(HARTREE_EV))
        np.testing.assert_allclose(back.forces, np.reshape(given["F"], (-1, 3)) * HARTREE_EV / BOHR_ANGSTROM)

    def test_unstated_units_are_refused_unless_given(self, tmp_path: Path) -> None:
        path = self.save(tmp_path / "a.npz", **self.arrays(("z", "R", "E", "F")))
        with pytest.raises(DataError, match="does not say in which unit"):
            read_any(path)
        assert read_any(path, units="eV").is_labelled.all()

    def test_padded_molecules_of_different_size(self, tmp_path: Path) -> None:
        given = self.arrays(("z", "R", "E", "F"))
        given["z"] = np.array([[8, 1, 1], [8, 1, 0], [8, 1, 1], [8, 0, 0]])
        back = read_any(self.save(tmp_path / "a.npz", **given), units="eV")
        assert back.n_atoms.tolist() == [3, 2, 3, 1]
        np.testing.assert_array_equal(back.forces[3:5], np.asarray(given["F"])[1, :2])

    def test_without_labels(self, tmp_path: Path) -> None:
        given = {k: v for k, v in self.arrays(("z", "R", "E", "F")).items() if k in "zR"}
        assert not read_any(self.save(tmp_path / "a.npz", **given)).is_labelled.any()

    def test_named_key(self, tmp_path: Path) -> None:
        given = self.arrays(("nuclear_charges", "coords", "energies", "forces"))
        path = self.save(tmp_path / "a.npz", **given, old_energies=np.full(4, 2.0))
        assert read_any(path, energy_key="old_energies").energy[0] == pytest.approx(2.0 * KCAL_PER_MOL_EV)
        with pytest.raises(DataError, match=r"no array 'old_energie' for energies.*Did you mean 'old_energies'"):
            read_any(path, energy_key="old_energie")

    def test_zero_labels(self, tmp_path: Path) -> None:
        given = self.arrays(("nuclear_charges", "coords", "energies", "forces")) | {"energies": np.zeros(4)}
        with pytest.raises(DataError, match="all 4 energies are zero"):
            read_any(self.save(tmp_path / "a.npz", **given))

    def test_wrong_shapes(self, tmp_path: Path) -> None:
        given = self.arrays(("nuclear_charges", "coords", "energies", "forces"))
        with pytest.raises(DataError, match=r"energies have shape \(3,\), expected \(4,\)"):
            read_any(self.save(tmp_path / "a.npz", **given | {"energies": np.ones(3)}))
        with pytest.raises(DataError, match="positions have shape"):
            read_any(self.save(tmp_path / "b.npz", **given | {"nuclear_charges": np.ones(5, int)}))

    def test_pickled_objects_are_never_loaded(self, tmp_path: Path) -> None:
        given = self.arrays(("z", "R", "E", "F")) | {"E": np.array([{"a": 1}], dtype=object)}
        with pytest.raises(DataError, match="never unpickles"):
            read_any(self.save(tmp_path / "a.npz", **given))


@pytest.mark.skipif(not BENCHMARK.is_dir(), reason=f"benchmark data not found in {BENCHMARK}")
class TestBenchmarkData:
    def test_rmd17_energies_are_physical(self) -> None:
        # ORCA PBE/def2-SVP ethanol: near -154.7 hartree; wrong units are off by a factor of 23.
        ethanol = read_any(BENCHMARK / "rmd17" / "ethanol_train01.xyz.gz")
        assert ethanol.is_labelled.all()
        assert np.abs(ethanol.energy / HARTREE_EV + 154.7).max() < 0.2
        assert 0.9 < np.sqrt(np.mean(ethanol.forces**2)) < 1.4

    def test_planted_duplicates_of_3bpa_are_found(self) -> None:
        from dubito.data.fingerprints import fingerprints

        train = read_any(BENCHMARK / "3bpa" / "train_300K.xyz.gz")
        mixed = read_any(BENCHMARK / "3bpa" / "train_mixedT_tagged.xyz.gz")
        nearest = fingerprints(mixed).nearest(fingerprints(train))
        # 31 frames are in both; every other one is at least 0.05 Å away.
        assert (nearest < 0.02).sum() == 31
        assert np.sort(nearest)[31] > 0.05

    def test_energies_without_forces_are_no_labels(self) -> None:
        atoms = read_any(BENCHMARK / "3bpa" / "iso_atoms.xyz.gz")
        assert not atoms.is_labelled.any()
        assert np.isfinite(atoms.energy).all()
