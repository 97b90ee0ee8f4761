"""Labels on a graphics card, without one: the choice, its errors, and the calls, with stand-ins for the libraries."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dubito.config.labelling import PyscfConfig
from dubito.core.errors import EnvironmentFault
from dubito.data.structures import Structures
from dubito.labelling.base import SCF_NOT_CONVERGED, LabellingFailure
from dubito.labelling.device import choose_device
from dubito.labelling.pyscf_labeller import PyscfLabeller
from dubito.testing.structures import rattled

ONE = rattled(1, molecules="ammonia")
DOUBLET = Structures.build([[7, 1, 1]], [[[0, 0, 0.14], [0.05, 0.8, -0.5], [0, -0.82, -0.47]]], multiplicity=2)
SMALL = {"basis": "sto-3g", "grid_level": 2}


class OnCard:
    """An array that, like cupy's, goes to numpy by ``get`` only."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def get(self) -> Any:
        return self.values

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")


class FakeCard:
    """A calculation on a pretended card: PySCF's own, moved there by ``to_gpu``."""

    def __init__(self, scf: Any, calls: list[str], *, shift: float, fails: bool) -> None:
        self.scf, self.calls, self.shift, self.fails = scf, calls, shift, fails

    def kernel(self) -> float:
        self.calls.append("kernel")
        self.scf.kernel()
        self.converged, self.e_tot = self.scf.converged and not self.fails, np.float64(self.scf.e_tot + self.shift)
        return float(self.e_tot)

    def nuc_grad_method(self) -> Any:
        self.calls.append("gradient")
        gradient = self.scf.nuc_grad_method()

        def kernel() -> OnCard:
            gradient.grid_response = card.grid_response
            return OnCard(gradient.kernel())

        card = SimpleNamespace(kernel=kernel, grid_response=None)
        return card


@pytest.fixture
def calls() -> list[str]:
    return []


def pretend(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], *, cards: int = 1, shift: float = 0.0, fails: bool = False
) -> None:
    """Put stand-ins for cupy and gpu4pyscf into ``sys.modules``, and let ``to_gpu`` make pretended calculations."""
    from pyscf.df import df_jk

    runtime = SimpleNamespace(getDeviceCount=lambda: cards)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    monkeypatch.setitem(sys.modules, "gpu4pyscf", SimpleNamespace(__version__="1.9.0"))

    def to_gpu(self: Any) -> FakeCard:
        calls.append(f"to_gpu {self.mol.natm} {self.mol.spin}")
        return FakeCard(self, calls, shift=shift, fails=fails)

    monkeypatch.setattr(df_jk._DFHF, "to_gpu", to_gpu)


def labeller(device: str = "gpu") -> PyscfLabeller:
    return PyscfLabeller(PyscfConfig(**SMALL, device=device))


# --- no card ------------------------------------------------------------------------------------


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # importing it then fails as if it were not installed


def break_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    sys.modules["cupy"].cuda.runtime.getDeviceCount = count


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [
        ("no cupy", r"labelling\.labeller\.device asks for a GPU, but cupy can't be imported.*pip install"),
        ("no driver", r"can't reach one \(RuntimeError: cudaErrorNoDevice.*Set labelling\.labeller\.device to cpu"),
        ("no card", r"cupy sees no card\. Set labelling\.labeller\.device to cpu; or to auto"),
        ("no gpu4pyscf", r"gpu4pyscf can't be imported.*pip install gpu4pyscf"),
    ],
)
def test_gpu_without_one_is_an_error_and_auto_says_once_that_it_takes_the_cpu(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], caplog: pytest.LogCaptureFixture, fault: str, pattern: str
) -> None:
    pretend(monkeypatch, calls, cards=0 if fault == "no card" else 1)
    if fault == "no driver":
        break_driver(monkeypatch)
    elif fault in ("no cupy", "no gpu4pyscf"):
        without(monkeypatch, fault.split()[1])
    with pytest.raises(EnvironmentFault, match=pattern):
        labeller("gpu")
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="dubito"):
        dft = labeller("auto")
        dft.label(ONE)
    assert not dft.device.is_gpu
    assert [r.message for r in caplog.records if "on the CPU" in r.message] == [caplog.records[0].message]
    assert calls == []


def test_the_cpu_is_the_default_and_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cupy", "gpu4pyscf"):
        without(monkeypatch, module)
    assert not choose_device(PyscfConfig().device).is_gpu


# --- a pretended card ---------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "auto"])
def test_labels_go_to_the_card_and_come_back_as_numbers(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], device: str
) -> None:
    pretend(monkeypatch, calls)
    dft = labeller(device)
    label, plain = dft.label(ONE), labeller("cpu").label(ONE)
    assert calls == ["to_gpu 3 0", "kernel", "gradient", "to_gpu 4 0", "kernel", "gradient"], (
        "first the trial, on water"
    )
    assert type(label.energy) is float
    assert label.energy == pytest.approx(plain.energy, abs=1e-7)
    np.testing.assert_allclose(label.forces, plain.forces, atol=1e-6)
    assert label.code_version.endswith(", gpu4pyscf 1.9.0")
    assert "gpu4pyscf" not in plain.code_version
    calls.clear()
    dft.label(ONE)
    assert calls == ["to_gpu 4 0", "kernel", "gradient"], "one trial is enough"
    calls.clear()
    dft.label(DOUBLET)
    assert calls[0] == "to_gpu 3 1", "open shells have a trial of their own"


def test_labels_of_both_devices_share_their_settings(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    pretend(monkeypatch, calls)
    hashes = {labeller(device).settings_hash for device in ("cpu", "gpu", "auto")}
    assert len(hashes) == 1
    assert len({str(labeller(device).effort()) for device in ("cpu", "gpu", "auto")}) == 1


@pytest.mark.parametrize("what", ["shifted", "raises"])
def test_a_card_that_disagrees_makes_no_label(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], caplog: pytest.LogCaptureFixture, what: str
) -> None:
    pretend(monkeypatch, calls, shift=1e-4)
    if what == "raises":
        monkeypatch.setattr(FakeCard, "kernel", lambda self: 1 / 0)
    pattern = "differs from the CPU's by 2.72 meV" if what == "shifted" else "raised ZeroDivisionError"
    with pytest.raises(EnvironmentFault, match=f"can't be trusted with PBE/sto-3g.*{pattern}"):
        labeller("gpu").label(ONE)
    with caplog.at_level(logging.INFO, logger="dubito"):
        dft = labeller("auto")
        labels = [dft.label(ONE), dft.label(ONE)]
    assert sum("labelling on the CPU" in r.message for r in caplog.records) == 1
    assert labels[0].energy == pytest.approx(labeller("cpu").label(ONE).energy, abs=1e-7)
    assert "gpu4pyscf" not in labels[0].code_version


def test_what_the_card_does_not_converge_climbs_on_the_cpu(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    pretend(monkeypatch, calls, fails=True)
    dft = labeller("gpu")
    dft._trusted.add(True)
    label = dft.label(ONE)
    assert label.attempts == 2
    assert "gpu4pyscf" not in label.code_version
    assert label.energy == pytest.approx(labeller("cpu").label(ONE).energy, abs=1e-7)


@pytest.mark.parametrize("device", ["gpu", "auto"])
def test_a_card_that_does_not_converge_its_trial_is_not_compared_with_the_cpu_by_the_cpu(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], caplog: pytest.LogCaptureFixture, device: str
) -> None:
    pretend(monkeypatch, calls, shift=0.05, fails=True)
    dft = labeller(device)
    fault = "its SCF of a water molecule did not converge"
    if device == "gpu":
        with pytest.raises(EnvironmentFault, match=fault):
            dft.label(ONE)
        return
    with caplog.at_level(logging.INFO, logger="dubito"):
        label = dft.label(ONE)
    assert fault in caplog.text
    assert not dft.device.is_gpu
    assert label.energy == pytest.approx(labeller("cpu").label(ONE).energy, abs=1e-7)


class OutOfMemoryError(MemoryError):
    """As cupy's own."""


@pytest.mark.parametrize("fault", ["nan", "net force", OutOfMemoryError, NotImplementedError])
def test_what_a_card_fails_at_is_labelled_by_the_cpu(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    pretend(monkeypatch, calls)
    dft = labeller("auto")
    dft._trusted.add(True)

    def gradient(self: FakeCard) -> Any:
        def kernel() -> OnCard:
            if isinstance(fault, str):
                return OnCard(np.full((4, 3), np.nan if fault == "nan" else 1.0))
            raise fault("not on this card")

        return SimpleNamespace(kernel=kernel, grid_response=None)

    monkeypatch.setattr(FakeCard, "nuc_grad_method", gradient)
    with caplog.at_level(logging.WARNING, logger="dubito"):
        label = dft.label(ONE)
    assert [r.message for r in caplog.records if "which is labelled on the CPU" in r.message]
    plain = labeller("cpu").label(ONE)
    assert (label.energy, label.code_version) == (pytest.approx(plain.energy, abs=1e-7), plain.code_version)
    assert dft.device.is_gpu, "the next structure tries it again"


def test_what_the_ladder_gave_up_is_not_climbed_twice(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    pretend(monkeypatch, calls, fails=True)
    dft = labeller("gpu")
    dft._trusted.add(True)
    climbed: list[int] = []

    def climb(*_: Any, **__: Any) -> Any:
        climbed.append(1)
        raise LabellingFailure(SCF_NOT_CONVERGED, "No rung converged.", attempts=3)

    monkeypatch.setattr("dubito.labelling.pyscf_labeller.climb", climb)
    with pytest.raises(LabellingFailure, match="No rung"):
        dft.label(ONE)
    assert climbed == [1]
