"""Read a campaign folder into plain objects; a campaign still running is read as far as it got."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dubito.config import Config, config_hash
from dubito.core import progress
from dubito.core.errors import DataError
from dubito.core.files import read_object
from dubito.core.hashing import hash_file
from dubito.core.provenance import versions
from dubito.data.formula import formula_keys
from dubito.data.store import read_attributes, read_structures
from dubito.data.structures import Structures
from dubito.metrics.profile import EnergyProfile
from dubito.reporting.cost import StageCost, stage_costs
from dubito.reporting.evaluated import Evaluated, join_labels, read_evaluated, read_profile
from dubito.reporting.geometry import composition_minimum, smallest_distance

INITIAL = "initial"


@dataclass(frozen=True)
class Selected:
    """One selected structure; energies in eV, distances in Å."""

    id: str
    iteration: int
    reason: str
    score: float | None
    sampler: str
    trajectory: str
    labelled: bool
    energy_above_minimum: float | None
    smallest_distance: float | None


@dataclass(frozen=True)
class Failure:
    """One structure that could not be labelled."""

    id: str
    iteration: int
    reason: str
    message: str
    score: float | None


@dataclass(frozen=True)
class Iteration:
    """What one finished iteration left behind."""

    index: int
    metrics: Mapping[str, Any]
    decision: Mapping[str, Any]
    manifest: Mapping[str, Any]
    shard_reports: Sequence[Mapping[str, Any]]
    profiles: Sequence[EnergyProfile]
    # How many ended with each code, by kind of sampler; "" where it is not known whose they are.
    stops: Mapping[str, Mapping[str, int]]
    walkers: int
    new: Evaluated | None
    driver: str
    # What the fits of this iteration's model say of themselves, by method.
    fits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def unfitted(self) -> Mapping[str, str]:
        """The methods that could not be fitted to this iteration's model, with the reason."""
        return {name: str(about["not_fitted"]) for name, about in self.fits.items() if "not_fitted" in about}

    @property
    def chosen(self) -> Mapping[str, Any]:
        """Which method drives the next iteration, and why."""
        found: Mapping[str, Any] = self.decision.get("acquire_with", {})
        return found

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """What may be accepted at which risk; None in iteration 0, without a control slice, or of an older dubito."""
        found: Mapping[str, Any] | None = self.metrics.get("certificate")
        return found or None

    @property
    def plan(self) -> Mapping[str, Any] | None:
        """Where the learning curve leads; None before three points, or of an older dubito."""
        found: Mapping[str, Any] | None = self.decision.get("plan")
        return found or None

    @property
    def known_labels(self) -> int:
        """Labels the model of this iteration knew: its control structures are learnt in the next one."""
        labels = self.metrics["labels"]
        return int(labels["total"]) - int(labels["control"])


@dataclass(frozen=True)
class Campaign:
    """Everything the report and the summary say."""

    folder: Path
    config: Config
    iterations: Sequence[Iteration]
    costs: Sequence[StageCost]
    sets: Mapping[str, Evaluated]
    selected: Sequence[Selected]
    failures: Sequence[Failure]
    config_text: str
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    latest_event: str = ""
    reference_cpu_s: float = 0.0

    @property
    def last(self) -> Iteration:
        """The latest finished iteration."""
        return self.iterations[-1]

    @property
    def method(self) -> str:
        """The uncertainty method that drove the latest iteration."""
        return self.last.driver

    @property
    def drives(self) -> str:
        """The method that drives now: the next iteration, or, once the campaign has ended, the latest."""
        following = self.last.chosen.get("method")
        return self.method if following is None or self.last.decision.get("stop") else str(following)

    @property
    def title(self) -> str:
        """The title the user gave, or the campaign's name."""
        return self.config.report.title or self.config.campaign.name


def iteration_folder(folder: Path, index: int) -> Path:
    """Return the folder of an iteration."""
    return folder / f"iter_{index:03d}"


def collect(folder: Path, config: Config, *, last: int | None = None) -> Campaign:
    """Read a campaign up to iteration ``last`` (None: as far as it has metrics).

    Files are those that manifests and configuration name: others in the folder are left over from
    earlier settings.

    Raises
    ------
    DataError
        When no iteration has been evaluated yet.
    """
    iterations: list[Iteration] = []
    while last is None or len(iterations) <= last:
        where = iteration_folder(folder, len(iterations))
        if not (where / "metrics.json").is_file():
            break
        iterations.append(_iteration(where, len(iterations), config))
    if not iterations:
        raise DataError(
            f"{folder} holds no evaluated iteration (iter_000/metrics.json), so there is nothing to report yet. "
            "Let the campaign run until its first iteration is measured, or name another folder."
        )
    events = progress.read(folder / "progress.jsonl")
    end = iterations[-1].index
    where = iteration_folder(folder, end)
    return Campaign(
        folder=folder,
        config=config,
        iterations=iterations,
        costs=stage_costs(events, end),
        sets=_sets(where, config),
        selected=_selected(folder, iterations),
        failures=_failures(iterations),
        config_text=_config_text(config),
        versions=versions(),
        hashes={"configuration": config_hash(config)}
        | {
            name: hash_file(path)
            for name, path in (("dataset", where / "dataset.h5"), ("ensemble", where / "ensemble.safetensors"))
            if path.is_file()
        },
        reference_cpu_s=_reference_cpu_s(folder, config),
        latest_event=str(events[-1].get("text") or "") if events else "",
    )


def _iteration(where: Path, index: int, config: Config) -> Iteration:
    manifest = _json_if_there(where / "selection.json")
    shards = [where / "labels" / f"shard_{shard:03d}.h5" for shard in range(int(manifest.get("n_shards", 0)))]
    profiles = [where / "predictions" / f"profile_{profile.name}.h5" for profile in config.evaluation.profiles]
    selected, asked = where / "selected.h5", where / "predictions" / "batch.h5"
    if manifest.get("adaptive") and asked.is_file():
        selected = asked  # when it was selected not all members had been asked about all of it
    stops, walkers = _stops(where / "pool", config)
    metrics = read_object(where / "metrics.json", labels=dict)
    driver = str(metrics.get("method") or config.uncertainty.first_driver)
    return Iteration(
        index=index,
        metrics=metrics,
        decision=_json_if_there(where / "decision.json"),
        manifest=manifest,
        shard_reports=[_shard_report(path) for path in _present(path.with_suffix(".json") for path in shards)],
        profiles=[read_profile(path, driver) for path in _present(profiles)],
        stops=stops or _stops_of_all(metrics),
        walkers=walkers,
        new=join_labels(selected, _present(shards)) if index > 0 and selected.is_file() else None,
        driver=driver,
        fits=_fits(where, config),
    )


def _fits(where: Path, config: Config) -> dict[str, Mapping[str, Any]]:
    found = {name: _json_if_there(where / "uncertainty" / f"{name}.json") for name in config.uncertainty.methods}
    return {name: about for name, about in found.items() if about}


def _present(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file()]


def _reference_cpu_s(folder: Path, config: Config) -> float:
    """Return the processor time (s) of the labels of the profiles, their relaxations included."""
    profiles = [folder / "reference" / f"profile_{profile.name}.h5" for profile in config.evaluation.profiles]
    return sum(float(read_attributes(path).get("cpu_s") or 0.0) for path in _present(profiles))


def _json_if_there(path: Path) -> Mapping[str, Any]:
    return read_object(path) if path.is_file() else {}


def _shard_report(path: Path) -> Mapping[str, Any]:
    return read_object(path, done=int, failed=list)


def _stops(pool: Path, config: Config) -> tuple[dict[str, dict[str, int]], int]:
    """Return how many ended with each code, by kind of sampler, and how many there were."""
    stops: dict[str, dict[str, int]] = {}
    walkers = 0
    for job in range(config.sampling.n_jobs):
        path = pool / f"job_{job}.h5"
        if not path.is_file():
            continue
        about = read_attributes(path)
        walkers += int(about.get("walkers", 0))
        mine = stops.setdefault(config.sampling.sampler_of_job(job).kind, {})
        for reason, count in dict(about.get("stops") or {}).items():
            mine[reason] = mine.get(reason, 0) + int(count)
    return {sampler: counts for sampler, counts in stops.items() if counts}, walkers


def _stops_of_all(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
    """Return the same from metrics, which don't tell samplers apart."""
    stops = metrics.get("exploring", {}).get("stops", {})
    return {"": stops} if stops else {}


def _sets(where: Path, config: Config) -> dict[str, Evaluated]:
    """Return training, validation and test structures with the predictions of the latest model."""
    sets: dict[str, Evaluated] = {}
    dataset, test = where / "predictions" / "dataset.h5", where / "predictions" / "test.h5"
    if dataset.is_file():
        whole = read_evaluated(dataset)
        sets = {name: whole.where("origin/split", name) for name in ("train", "valid")}
    if config.evaluation.test_files and test.is_file():
        sets["test"] = read_evaluated(test)
    return {name: part for name, part in sets.items() if len(part)}


def _selected(folder: Path, iterations: Sequence[Iteration]) -> list[Selected]:
    dataset = iteration_folder(folder, iterations[-1].index) / "dataset.h5"
    labels = read_structures(dataset) if dataset.is_file() else Structures.empty()
    energy = dict(zip(labels.ids, labels.energy.tolist(), strict=True))
    lowest = composition_minimum(labels)
    rows: list[Selected] = []
    for iteration in iterations:
        path = iteration_folder(folder, iteration.index) / "selected.h5"
        if not path.is_file():
            continue
        structures = read_structures(path)
        score_of = _scores(iteration)
        texts = [structures.text(f"origin/{name}") for name in ("reason", "sampler", "trajectory")]
        columns = (structures, structures.ids, formula_keys(structures), *texts)
        for one, name, formula, reason, sampler, trajectory in zip(*columns, strict=True):
            above = energy[name] - lowest[formula] if name in energy else None
            rows.append(
                Selected(
                    id=name,
                    iteration=iteration.index,
                    reason=reason or INITIAL,
                    score=score_of.get(name),
                    sampler=sampler,
                    trajectory=trajectory,
                    labelled=name in energy,
                    energy_above_minimum=above,
                    smallest_distance=smallest_distance(one),
                )
            )
    return rows


def _scores(iteration: Iteration) -> dict[str, float | None]:
    manifest = iteration.manifest
    return dict(zip(manifest.get("ids", ()), manifest.get("scores", ()), strict=False))


def _failures(iterations: Sequence[Iteration]) -> list[Failure]:
    return [
        Failure(
            id=str(failed.get("id", "")),
            iteration=iteration.index,
            reason=str(failed.get("reason", "unknown")),
            message=str(failed.get("message", "")),
            score=_scores(iteration).get(str(failed.get("id", ""))),
        )
        for iteration in iterations
        for report in iteration.shard_reports
        for failed in report.get("failed", ())
    ]


def _config_text(config: Config) -> str:
    import yaml

    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
