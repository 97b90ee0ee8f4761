"""The smallest campaign with real density functional theory."""

from __future__ import annotations

from collections.abc import Callable

from campaigns import read_json

from dubito.data.store import read_structures


def test_water(campaign: Callable) -> None:
    one = campaign("water_tiny")
    one.run()
    summary = read_json(one.results / "summary.json")
    assert summary["state"] == "max_iterations"
    assert summary["labels"]["failed"] == 0
    dataset = read_structures(one.results / "iter_001" / "dataset.h5")
    assert len(dataset) == summary["labels"]["done"] >= 6
    assert set(dataset.text("provenance/method")) == {"pyscf PBE/sto-3g"}
    # PBE/STO-3G water lies near -75.2 hartree; a wrong unit or a dropped reference would be far off.
    assert (abs(dataset.energy / 27.2114 + 75.23) < 0.15).all()
    assert summary["cost"]["dft_cpu_hours"] > 0
    # Where labels are made changes none.
    labeller = one.raw["labelling"]["labeller"]
    one.write(labelling={"labeller": labeller | {"device": "auto"}})
    assert one.jobs_of_dry_run() == set()
