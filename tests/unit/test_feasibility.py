"""What no campaign can do is said in one paragraph before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from dubito.cli.checking import check_campaign
from dubito.config import parse_config
from dubito.config.control_size import control_labels_needed
from dubito.config.feasibility import faults_of, require_feasible
from dubito.core.errors import ConfigError
from dubito.workflow.campaign import load_campaign

ROOT = Path(__file__).parents[2]


def faults(**sections: dict[str, Any]) -> list[str]:
    found = list(faults_of(parse_config(sections)))
    assert all("\n" not in text for text in found)
    return found


def test_the_demo_and_the_examples_are_possible() -> None:
    from dubito.config import load_config

    for path in [ROOT / "config" / "config.yaml", *(ROOT / "config" / "examples").glob("*.yaml")]:
        assert list(faults_of(load_config(path))) == []


class TestTolerance:
    def test_below_the_noise_of_a_coarse_grid(self) -> None:
        (text,) = faults(labelling={"labeller": {"kind": "pyscf", "grid_level": 0}})
        assert "force_tolerance_ev_per_angstrom is 0.3" in text
        assert "0.27 eV/Å" in text
        assert "Expected at least 0.81" in text
        assert "grid_level: 4" in text

    def test_a_fine_grid_allows_a_fine_tolerance(self) -> None:
        tolerance = {"force_tolerance_ev_per_angstrom": 0.001}
        assert len(faults(selection=tolerance)) == 1
        assert faults(selection=tolerance, labelling={"labeller": {"kind": "pyscf", "grid_level": 4}}) == []

    def test_other_labellers_have_no_such_noise(self) -> None:
        assert not faults(
            selection={"force_tolerance_ev_per_angstrom": 1e-6}, labelling={"labeller": {"kind": "teacher"}}
        )


class TestRisk:
    @pytest.mark.parametrize("risk", [0, 0.0, -0.1, 1, 1.0, 2])
    def test_impossible_ones_are_refused_with_the_reason(self, risk: float) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_config({"selection": {"risk": risk}})
        assert "selection.risk: found " in str(caught.value)
        assert ("no finite number of labels" if risk <= 0 else "to accept anything") in str(caught.value)
        assert "Type 0.05" in str(caught.value)

    def test_a_control_slice_too_small_says_how_many_it_takes(self) -> None:
        (text,) = faults(selection={"risk": 0.01})
        assert "A control slice of 20 labels" in text
        assert f"it takes {control_labels_needed(0.01)}, and {control_labels_needed(0.01, 0.9)} while 90%" in text
        assert "min_control_labels to 111" in text

    def test_enough_labels_or_none_are_no_fault(self) -> None:
        assert not faults(selection={"risk": 0.01, "min_control_labels": 111})
        assert not faults(selection={"risk": 0.01, "n_select": 1000})
        assert not faults(selection={"risk": 0.01, "control_fraction": 0})

    def test_the_least_risk_that_is_named_is_possible(self) -> None:
        (text,) = faults(selection={"risk": 0.02, "min_control_labels": 24})
        assert "a risk of 0.04 or more" in text
        assert not faults(selection={"risk": 0.04, "min_control_labels": 24})


class TestBudget:
    def test_smaller_than_the_first_batch(self) -> None:
        (text,) = faults(campaign={"max_labels": 47})
        assert "less than 12 initial structures and one batch (16 selected and 20 control, 48 in all)" in text
        assert not faults(campaign={"max_labels": 48})

    def test_initial_structures_of_files_are_not_counted(self) -> None:
        initial = {"initial": {"kind": "files", "files": ["a.xyz"]}}
        assert not faults(campaign={"max_labels": 36}, data=initial)
        assert "less than one batch" in faults(campaign={"max_labels": 35}, data=initial)[0]

    def test_they_are_where_the_campaign_starts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from ase.build import molecule
        from ase.io import write

        frames = [molecule("NH3") for _ in range(10)]
        for k, frame in enumerate(frames):
            frame.rattle(0.02, seed=k)
        write(tmp_path / "ten.xyz", frames)
        monkeypatch.chdir(tmp_path)
        raw: dict[str, Any] = {"data": {"initial": {"kind": "files", "files": ["ten.xyz"]}}}
        enough, scarce = ({**raw, "campaign": {"name": "ten", "max_labels": n}} for n in (46, 45))
        said = "less than 10 initial structures and one batch.*46 in all.*data.initial.n_structures"
        assert load_campaign(dict(enough)).campaign.max_labels == 46
        with pytest.raises(ConfigError, match=said):
            load_campaign(dict(scarce))
        (tmp_path / "ten.yaml").write_text(yaml.safe_dump(scarce))
        with pytest.raises(ConfigError, match=said):
            next(check_campaign(tmp_path / "ten.yaml", profile="", submit=False, probe=0, snakefile=Path))

    def test_labelling_alone_may_have_any_budget(self) -> None:
        assert not faults(campaign={"max_labels": 1, "max_iterations": 0})


class TestNoCertificate:
    def test_a_window_that_it_would_close(self) -> None:
        (text,) = faults(selection={"selector": "threshold_window", "control_fraction": 0})
        assert "never a certificate" in text
        assert "set selection.min_score" in text
        (text,) = faults(selection={"skip_accepted": True, "control_fraction": 0})
        assert "set selection.skip_accepted to false" in text
        both = {"selector": "threshold_window", "skip_accepted": True, "control_fraction": 0}
        (text,) = faults(selection=both)
        assert "to false and set selection.min_score" in text

    def test_other_windows_need_none(self) -> None:
        assert not faults(selection={"selector": "threshold_window", "min_score": 0.1, "control_fraction": 0})
        assert not faults(selection={"selector": "lcmd", "control_fraction": 0})
        assert not faults(selection={"selector": "threshold_window", "skip_accepted": True})


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_score \(0.2\) must be above selection.min_score \(0.3\)"):
        parse_config({"selection": {"min_score": 0.3, "max_score": 0.2}})


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        require_feasible(parse_config({"selection": {"risk": 0.001}, "campaign": {"max_labels": 5}}))
    assert "control slice" in str(caught.value)
    assert "campaign.max_labels is 5" in str(caught.value)


class TestWhereItIsSaid:
    RAW: ClassVar = {"campaign": {"name": "tight", "max_labels": 5}}

    def test_before_the_start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match=r"campaign.max_labels is 5"):
            load_campaign(dict(self.RAW))

    def test_a_campaign_that_has_begun_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        manifest = tmp_path / "results" / "tight" / "iter_000" / "selection.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")
        assert load_campaign(dict(self.RAW)).campaign.max_labels == 5
        said = capsys.readouterr()
        assert "campaign.max_labels is 5" in said.out + said.err
        assert "goes on as it is" in said.out + said.err

    def test_by_check(self, tmp_path: Path) -> None:
        path = tmp_path / "tight.yaml"
        path.write_text("campaign: {max_labels: 5}\n")
        with pytest.raises(ConfigError, match=r"campaign.max_labels is 5"):
            next(check_campaign(path, profile="", submit=False, probe=0, snakefile=Path))
