"""The compiled network against e3nn's, its derivatives, its threads, and what happens where it can't be had."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dubito.config.model import ModelConfig
from dubito.core.errors import ModelError
from dubito.data.graphs import Graph, build_graph
from dubito.data.statistics import Statistics
from dubito.data.structures import Structures
from dubito.model.fused import choice, compiler, library
from dubito.model.fused.source import Specification, write_source
from dubito.model.potential import Potential
from dubito.testing.structures import crystal, rattled

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler: there is no compiled network to test"
)

STATISTICS = Statistics((1, 7, 8), np.array([-13.6, -1480.0, -2040.0]), np.array([0.7, 1.3, 1.5]), 1.0, 6.0)
# Of the largest value: what the issue of this kernel asked for.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
R_MAX = 3.5


def make(kernel: str, *, members: int = 2, **options: object) -> Potential:
    config = {"n_features": 8, "n_layers": 3, "r_max_angstrom": R_MAX, "dtype": "float64", "kernel": kernel, **options}
    potential = Potential(ModelConfig.model_validate(config), STATISTICS, members)
    potential.initialise(0, list(range(members)))
    for parameter in potential.parameters():
        parameter.requires_grad_()
    return potential


def everything() -> Structures:
    """Molecules, a crystal, a lone atom, and a molecule with an atom out of reach."""
    lone = Structures.build([[7], [8, 1, 1]], [np.zeros((1, 3)), [[0, 0, 0], [0.95, 0, 0], [9, 0, 0]]])
    return Structures.concatenate([rattled(2), crystal(1), lone, rattled(1, seed=1)])


def graph_of(structures: Structures, potential: Potential) -> Graph:
    return build_graph(structures, STATISTICS.species, R_MAX, potential.dtype)


def quantities(potential: Potential, graph: Graph) -> dict[str, Tensor]:
    """Return values, and the gradient of a loss of energies, forces and virial by each parameter."""
    result = potential.evaluate(graph, create_graph=True)
    assert result.forces is not None
    assert result.virial is not None
    random = torch.Generator().manual_seed(2)
    loss = result.latent.square().mean()
    for value in (result.forces, result.energy, result.virial):
        weight = torch.randn(value.shape, generator=random, dtype=torch.float64).to(value.dtype)
        loss = loss + (weight * value).sum() + value.square().mean()
    names, parameters = zip(*potential.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    values = {"energies": result.energies, "forces": result.forces, "virial": result.virial, "latent": result.latent}
    return {k: v.detach() for k, v in [*values.items(), *zip(names, gradients, strict=True)]}


def assert_equal(ours: dict[str, Tensor], reference: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == reference.keys()
    for name, expected in reference.items():
        scale = float(expected.abs().max())
        worst = float((ours[name] - expected).abs().max())
        assert worst <= tolerance * scale, f"{name}: {worst:.2e} of {scale:.2e}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("l_max", "parity", "channels"),
    [
        (0, False, 8),
        (1, False, 32),
        (1, True, 8),
        (2, False, 8),
        (2, True, 8),
        (3, False, 8),
        (1, False, 5),
        (1, False, 24),
    ],
)
def test_it_equals_e3nn(l_max: int, parity: bool, channels: int, dtype: str) -> None:
    """Channels that fill vectors, that don't, and none at all in common with a vector."""
    options = {"l_max": l_max, "parity": parity, "n_features": channels, "dtype": dtype}
    fused, reference = make("fused", **options), make("e3nn", **options)
    ours = quantities(fused, graph_of(everything(), fused))
    assert isinstance(fused.compiled, choice.FusedNetwork)
    assert_equal(ours, quantities(reference, graph_of(everything(), reference)), TOLERANCE[dtype])


@pytest.mark.slow
@pytest.mark.parametrize(("l_max", "parity"), [(3, True), (4, False)])
def test_it_equals_e3nn_at_high_degrees(l_max: int, parity: bool) -> None:
    fused, reference = (make(kernel, l_max=l_max, parity=parity, n_layers=2) for kernel in ("fused", "e3nn"))
    graph = graph_of(rattled(1), fused)
    assert_equal(quantities(fused, graph), quantities(reference, graph), TOLERANCE["float64"])


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_any_number_of_layers(n_layers: int) -> None:
    fused, dense = make("fused", n_layers=n_layers), make("dense", n_layers=n_layers)
    graph = graph_of(everything(), fused)
    assert_equal(quantities(fused, graph), quantities(dense, graph), TOLERANCE["float64"])


@pytest.mark.parametrize(("hidden", "compiled"), [([], True), ([16], True), ([5], False), ([8] * 8, False)])
def test_any_radial_network(hidden: list[int], compiled: bool) -> None:
    """Those whose layers don't fill vectors, or are too many, run in torch."""
    fused, dense = make("fused", radial_hidden=hidden), make("dense", radial_hidden=hidden)
    graph = graph_of(everything(), fused)
    assert_equal(quantities(fused, graph), quantities(dense, graph), TOLERANCE["float64"])
    assert isinstance(fused.compiled, choice.FusedNetwork)
    assert (fused.compiled.radial is not None) == compiled


def test_gradcheck_of_features_forces_and_virial() -> None:
    """By weights, tables and readout at once: the second derivative that training on forces needs."""
    potential = make("fused", members=1, n_features=2, n_layers=2, radial_hidden=[4], n_spline_intervals=8)
    graph = graph_of(Structures.concatenate([rattled(1), crystal(1)])[[0]], potential)
    geometry = potential.geometry(graph)
    network = choice.choose_network(potential, torch.device("cpu"))
    assert network is not None
    random = torch.Generator().manual_seed(0)
    readout = torch.randn(1, graph.n_atoms, 2, generator=random, dtype=torch.float64).requires_grad_()
    tables = [layer.radial(potential._knot_basis).detach().requires_grad_() for layer in potential.interactions]
    weights = [weight.value for weight in network.description.weights]

    def function(readout: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            t for t in network(graph, geometry, readout, list(rest[: len(tables)]), virial=True) if t is not None
        )

    assert torch.autograd.gradcheck(function, (readout, *tables, *weights), eps=1e-6, atol=1e-6)


def test_a_second_backward_is_refused_not_wrong() -> None:
    potential = make("fused")
    result = potential.evaluate(graph_of(rattled(1), potential), create_graph=True)
    assert result.forces is not None
    (gradient,) = torch.autograd.grad(result.forces.square().sum(), potential.embedding.value, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_graphs_may_be_kept_while_others_are_made() -> None:
    """The state of a batch is memory used again, but not before its graph is gone."""
    potential = make("fused")
    first, second = (graph_of(rattled(3, seed=seed), potential) for seed in (0, 1))
    parameters = list(potential.parameters())

    def loss(graph: Graph) -> Tensor:
        result = potential.evaluate(graph, create_graph=True)
        assert result.forces is not None
        return result.forces.square().sum()

    expected = torch.autograd.grad(loss(first), parameters, materialize_grads=True)
    kept = loss(first)
    once = torch.autograd.grad(kept, parameters, retain_graph=True, materialize_grads=True)
    for _ in range(3):
        torch.autograd.grad(loss(second), parameters, materialize_grads=True)
    again = torch.autograd.grad(kept, parameters, materialize_grads=True)
    for a, b, c in zip(expected, once, again, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert isinstance(potential.compiled, choice.FusedNetwork)
    assert potential.compiled._spare


def test_energies_alone_are_differentiable() -> None:
    found = []
    for kernel in ("fused", "dense"):
        potential = make(kernel)
        result = potential.evaluate(graph_of(everything(), potential), forces=False, create_graph=True)
        assert result.forces is None
        loss = result.energy.square().sum()
        found.append(torch.autograd.grad(loss, list(potential.parameters())))
    for ours, reference in zip(*found, strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=1e-10 * float(reference.abs().max()))


@pytest.mark.parametrize(
    "structures", [rattled(9), crystal(1, lattice=4.2), crystal(5)], ids=["molecules", "one", "many"]
)
def test_any_number_of_threads_gives_the_same(structures: Structures) -> None:
    """Threads share tasks, or tiles of one task where there are fewer tasks than threads."""
    if len(structures) == 1:
        structures = supercell(structures, 3)
    potential = make("fused", members=1)
    graph, before, found = graph_of(structures, potential), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            found.append(quantities(potential, graph))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert_equal(other, found[0], 1e-12)
    for name, value in found[1].items():
        assert torch.equal(value, found[3][name]), f"{name}: two threads must give the same bits each time"


def supercell(structures: Structures, n: int) -> Structures:
    shifts = np.array([[i, j, k] for i in range(n) for j in range(n) for k in range(n)]) @ structures.cell[0]
    positions = (structures.positions[None] + shifts[:, None]).reshape(-1, 3)
    return Structures.build([np.tile(structures.atomic_numbers, n**3)], [positions], cell=n * structures.cell, pbc=True)


def test_a_supercell_has_the_energy_of_its_cells() -> None:
    potential = make("fused", l_max=2, members=1)
    one, many = crystal(1), supercell(crystal(1), 3)
    energy, larger = (potential.predict(s).energy[0] for s in (one, many))
    assert larger == pytest.approx(27 * energy, rel=1e-11)


def test_weights_changed_in_any_way_are_noticed() -> None:
    """The radial functions are kept between calls; the optimiser changes weights behind torch's back."""
    potential = make("fused")
    graph = graph_of(rattled(2), potential)
    before = potential.evaluate(graph).energy
    weight = potential.interactions[0].radial.weights[-1].value
    rows = weight.data.flatten(1).clone()
    weight.data = rows.view(weight.shape)
    assert torch.equal(potential.evaluate(graph).energy, before)
    rows.mul_(2.0)
    assert (potential.evaluate(graph).energy - before).abs().max() > 1e-3


def test_not_a_number_is_not_hidden() -> None:
    potential = make("fused")
    graph = graph_of(rattled(1), potential)
    potential.embedding.value.data[0].fill_(float("nan"))
    result = potential.evaluate(graph)
    assert result.forces is not None
    assert torch.isnan(result.energy[0]).all()
    assert torch.isnan(result.forces[0]).any()
    assert torch.isfinite(result.energy[1]).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_first_evaluation_may_be_in_any_mode(mode: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_checked", set())
    expected = make("dense")
    graph = graph_of(rattled(1), expected)
    with mode():
        energy = make("fused").evaluate(graph).energy
    torch.testing.assert_close(energy, expected.evaluate(graph).energy, rtol=0, atol=1e-9)


def test_what_does_not_fit_is_refused_before_it_reaches_c() -> None:
    potential = make("fused")
    graph = graph_of(rattled(1), potential)
    single = build_graph(rattled(1), STATISTICS.species, R_MAX, torch.float32)
    with pytest.raises(ModelError, match=r"graph is in torch.float32 and the potential in torch.float64"):
        potential.evaluate(single)
    with pytest.raises(ModelError, match="another graph"):
        potential.evaluate(graph, potential.geometry(graph_of(rattled(2), potential)))
    with pytest.raises(ModelError, match=r"torch.float64 on the CPU"):
        potential.evaluate(graph, make("dense", dtype="float32").geometry(single))


def test_weights_in_any_memory_order() -> None:
    """The numbers are what counts, not how they lie in memory."""
    potential = make("fused")
    graph = graph_of(rattled(1), potential)
    before = potential.evaluate(graph).energy
    for parameter in potential.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.transpose(2, 3).contiguous().transpose(2, 3)
            assert not parameter[0].is_contiguous()
    assert torch.equal(potential.evaluate(graph).energy, before)


def test_a_used_potential_can_be_copied_and_moved() -> None:
    potential = make("fused", dtype="float32")
    graph = graph_of(rattled(1), potential)
    before = potential.evaluate(graph).energy
    assert torch.equal(copy.deepcopy(potential).evaluate(graph).energy, before)
    assert potential.to("cpu").compiled is None
    assert torch.equal(potential.evaluate(graph).energy, before)


def test_absurd_vectors_do_not_crash() -> None:
    potential = make("fused")
    graph = graph_of(rattled(1), potential)
    for length in (1e9, 1e300, float("inf"), float("nan")):
        graph.vectors[0] = length
        potential.evaluate(graph)


def test_memory_goes_with_its_thread() -> None:
    potential = make("fused", members=1)
    graph = graph_of(supercell(crystal(1), 4), potential)

    def resident_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def once() -> None:
        thread = threading.Thread(target=potential.evaluate, args=(graph,))
        thread.start()
        thread.join()

    once()
    before = resident_mib()
    for _ in range(6):
        once()
    # Each thread works with some 10 MiB.
    assert resident_mib() - before < 20


# --- where there is no library ------------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and nothing remembered in this process."""
    monkeypatch.setenv("DUBITO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for remembered in (compiler._find_compiler, library.open_library):
        remembered.cache_clear()
    monkeypatch.setattr(choice, "_said", set())
    monkeypatch.setattr(choice, "_checked", set())
    yield tmp_path / "cache"
    for remembered in (compiler._find_compiler, library.open_library):
        remembered.cache_clear()


def falls_back(caplog: pytest.LogCaptureFixture, reason: str) -> None:
    caplog.set_level(logging.WARNING)
    reference = make("dense")
    for _ in range(2):
        potential = make("auto")
        graph = graph_of(rattled(1), potential)
        assert torch.equal(potential.evaluate(graph).energy, reference.evaluate(graph).energy)
    said = [record.getMessage() for record in caplog.records if "runs in torch" in record.getMessage()]
    assert len(said) == 1, "once, not for each potential"
    assert reason in said[0]
    with pytest.raises(ModelError, match=r"can't be used.*Install a C compiler.*model\.kernel"):
        make("fused").evaluate(graph)


def test_without_a_compiler(alone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PATH", str(alone))
    monkeypatch.delenv("CC", raising=False)
    falls_back(caplog, "no C compiler was found")


def fake_compiler(folder: Path, script: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fake-cc"
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo fake; exit 0; fi\n{script}\n')
    path.chmod(0o755)
    return str(path)


def test_with_a_broken_compiler(alone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("CC", fake_compiler(alone, "echo 'internal compiler error' >&2; exit 1"))
    falls_back(caplog, "internal compiler error")


def test_a_compiler_that_makes_rubbish(
    alone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", fake_compiler(alone, 'while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"'))
    falls_back(caplog, "compiled libraries")


def test_wrong_numbers_are_found_before_they_are_used(
    alone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A library that loads and runs but computes something else."""
    wrong = write_source(Specification(1, False, 8, True)).replace("to[j] += scale", "to[j] -= scale")
    wrong = wrong.replace(
        "static inline vec silu(vec x) { return x /", "static inline vec silu(vec x) { return 2 * x /"
    )
    monkeypatch.setattr(library, "write_source", lambda specification: wrong)
    falls_back(caplog, "differ from torch's")


def test_a_damaged_library_is_compiled_anew(alone: Path) -> None:
    make("fused").evaluate(graph_of(rattled(1), make("dense")))
    (path,) = alone.glob("*.so")
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], whole[:100] + b"\0\0\0\0" + whole[104:], b""):
        # A new file, as a copy that broke off would be: the old one is still mapped in this process.
        path.unlink()
        path.write_bytes(damage)
        library.open_library.cache_clear()
        potential = make("fused")
        potential.evaluate(graph_of(rattled(1), potential))
        assert compiler._intact(path)


def test_a_home_that_cannot_be_written(alone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("DUBITO_CACHE", str(blocked / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    potential = make("fused")
    potential.evaluate(graph_of(rattled(1), potential))
    assert list(tmp_path.glob("dubito-*/network-*.so"))


def test_a_readable_library_is_found_where_nothing_can_be_written(
    alone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = write_source(Specification(0, False, 4, False))
    compiler.load_library(source)
    (made,) = alone.glob("*.so")
    spare = tmp_path / f"dubito-{os.getuid()}"
    spare.mkdir(mode=0o700)
    (spare / made.name).write_bytes(made.read_bytes())
    made.unlink()
    monkeypatch.setattr(compiler, "_build", lambda *_: pytest.fail("compiled again"))
    compiler.load_library(source)


def test_a_folder_of_others_is_not_trusted(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone.mkdir()
    alone.chmod(0o777)
    source = write_source(Specification(0, False, 4, False))
    compiler.load_library(source)
    assert not list(alone.glob("*.so")), "where anybody may write, anybody may put what we would run"


def test_a_compiler_with_arguments_and_strange_letters(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``CC="ccache gcc"``; and a compiler that complains in another encoding falls back like any other."""
    wrapper = fake_compiler(alone, 'exec "$@"')
    gcc = shutil.which("gcc") or shutil.which("cc")
    monkeypatch.setenv("CC", f"{wrapper} {gcc}")
    compiler.load_library(write_source(Specification(0, False, 4, False)))
    compiler._find_compiler.cache_clear()
    monkeypatch.setenv("CC", fake_compiler(alone, "printf 'kaputt \\344\\n' >&2; exit 1"))
    with pytest.raises(compiler.CompilationError, match="kaputt"):
        compiler.load_library(write_source(Specification(0, False, 2, False)))


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DUBITO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert [folder.name for folder in compiler.cache_folders()] == [f"dubito-{os.getuid()}"]


def test_jobs_that_compile_at_once_do_not_meet(alone: Path) -> None:
    code = (
        "from dubito.model.fused.library import open_library\n"
        "from dubito.model.fused.source import Specification\n"
        "open_library(Specification(0, False, 4, False))\n"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ)) for _ in range(3)]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    (path,) = alone.iterdir()
    assert compiler._intact(path)


def test_it_is_for_the_cpu() -> None:
    with pytest.raises(ModelError, match=r"runs on the CPU.*'meta'.*auto"):
        choice.choose_network(make("fused"), torch.device("meta"))
    assert choice.choose_network(make("auto"), torch.device("meta")) is None
