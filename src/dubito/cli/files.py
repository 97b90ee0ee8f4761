"""Commands about files: predict, label, data, methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dubito.data.structures import Structures

StructuresArgument = Annotated[
    Path, typer.Argument(metavar="STRUCTURES", help="Structure file: extxyz, npz, h5, or what ASE reads.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="File to write: .xyz (extended XYZ) or .h5.")]

data_app = typer.Typer(help="Import structure files, or show what they hold.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (predict, label, methods):
        app.command()(command)
    data_app.command("import")(import_data)
    data_app.command("show")(show)
    app.add_typer(data_app, name="data")


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ensemble.safetensors.")],
    structures: StructuresArgument,
    output: OutputOption,
    uncertainty: Annotated[str, typer.Option(help="Uncertainty method fitted to the model.")] = "ensemble",
) -> None:
    """Predict energies and forces of structures, each with its uncertainty."""
    from dubito.calculator import DubitoCalculator
    from dubito.cli.predicting import predict_file

    _known_output(output)
    _exists(model, "model")
    print(predict_file(DubitoCalculator(model, uncertainty=uncertainty), uncertainty, structures, output))
    print(f"Next: run `dubito data show {output}`, or read dubito_energy and dubito_forces with ase.io.read.")


def label(
    structures: StructuresArgument,
    output: OutputOption,
    config: Annotated[Path, typer.Option(help="Configuration whose labeller is used.")] = Path("config/config.yaml"),
    threads: Annotated[int, typer.Option(min=1, help="Threads of one calculation.")] = 1,
) -> None:
    """Label structures with the labeller of a configuration."""
    from dubito.cli.labelling import label_file
    from dubito.config import load_config

    _known_output(output)
    print(label_file(load_config(config), structures, output, threads))
    print(f"Next: run `dubito data show {output}`.")


def methods() -> None:
    """List the uncertainty methods, selectors, samplers and labellers that are installed."""
    from dubito.cli.methods import table
    from dubito.labelling.registry import LABELLERS
    from dubito.sampling.registry import SAMPLERS
    from dubito.selection.registry import SELECTORS
    from dubito.uncertainty.registry import METHODS

    print("uncertainty methods (uncertainty.methods):")
    print("\n".join(table(METHODS)))
    for what, key, registry in (
        ("samplers", "sampling.sampler.kind", SAMPLERS),
        ("selectors", "selection.selector", SELECTORS),
        ("labellers", "labelling.labeller.kind", LABELLERS),
    ):
        print(f"{what} ({key}): {', '.join(sorted(registry.known()))}")
    print("Next: name one under its key in config/config.yaml.")


def import_data(
    structures: StructuresArgument,
    output: OutputOption,
    energy_key: Annotated[str | None, typer.Option(help="Key of the energies in the file.")] = None,
    forces_key: Annotated[str | None, typer.Option(help="Key of the forces in the file.")] = None,
    units: Annotated[str | None, typer.Option(help="For example 'kcal/mol, kcal/mol/Angstrom'.")] = None,
    charge: Annotated[int, typer.Option(help="Total charge, where the file gives none.")] = 0,
    multiplicity: Annotated[int, typer.Option(help="Spin multiplicity, where the file gives none.")] = 1,
) -> None:
    """Read a structure file, check it and write it in dubito's schema (.h5) or as extended XYZ."""
    from dubito.data.formats import read_any

    _known_output(output)
    found = read_any(
        structures, energy_key=energy_key, forces_key=forces_key, units=units, charge=charge, multiplicity=multiplicity
    )
    _write(output, found)
    print("\n".join(_described(structures, found)))
    print(f"Next: name {output} in the configuration (data.initial.files or evaluation.test_files).")


def show(structures: StructuresArgument) -> None:
    """Say what a structure file holds."""
    from dubito.data.formats import read_any

    print("\n".join(_described(structures, read_any(structures))))
    print(f"Next: `dubito data import {structures} -o FILE.h5`, or `dubito predict MODEL {structures} -o OUT.xyz`.")


def _described(path: Path, structures: Structures) -> list[str]:
    """Return what is worth knowing of a file."""
    from collections import Counter

    import numpy as np

    from dubito.data.formula import formula_keys

    labelled = structures.is_labelled
    formulas = Counter(formula_keys(structures)).most_common(5)
    lines = [
        f"{path}: {len(structures)} structures, {int(structures.n_atoms.sum())} atoms, {int(labelled.sum())} labelled",
        "  " + ", ".join(f"{count} x {name}" for name, count in formulas),
    ]
    repeated = len(structures) - len(set(structures.ids))
    if repeated:
        lines.append(f"  {repeated} of them are exact duplicates of others")
    if labelled.any():
        energy = structures.energy[labelled]
        forces = structures.forces[np.isfinite(structures.forces).all(axis=1)]
        lines.append(f"  energies {energy.min():.3f} to {energy.max():.3f} eV")
        if len(forces):
            lines.append(f"  forces up to {np.linalg.norm(forces, axis=1).max():.3f} eV/Å on an atom")
    for path_, what in (
        ("origin/reason", "selected as"),
        ("origin/split", "split"),
        ("provenance/method", "labelled by"),
    ):
        counts = Counter(text for text in structures.text(path_) if text)
        if counts:
            lines.append(f"  {what}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    return lines


def _write(output: Path, structures: Structures) -> None:
    from dubito.data.formats import write_extxyz
    from dubito.data.store import write_structures

    if output.suffix == ".h5":
        write_structures(output, structures)
    else:
        write_extxyz(output, structures)


def _known_output(output: Path) -> None:
    from dubito.core.errors import DataError

    if output.suffix not in (".h5", ".xyz", ".extxyz"):
        raise DataError(f"{output}: can't tell the format from the name; end it with .h5, .xyz or .extxyz.")


def _exists(path: Path, what: str) -> None:
    from dubito.core.errors import DataError

    if not path.is_file():
        raise DataError(
            f"{path} does not exist. Name the {what}, for example results/NAME/iter_004/ensemble.safetensors."
        )
