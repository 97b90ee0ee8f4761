"""How good the model is: one row for each evaluated iteration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dubito.cli.status.files import CampaignFiles
from dubito.cli.status.values import amount, mapping, number, text, whole

_FORCE = "force_rmse_ev_per_angstrom"


@dataclass(frozen=True)
class Certificate:
    """What may be accepted at the stated risk; ``bound`` is the estimate held against it."""

    holds: bool
    accepted_fraction: float
    bound: float
    n_control: int
    drifted: bool


@dataclass(frozen=True)
class Plan:
    """How many labels the target is expected to take; ``labels`` is None where that is farther than is forecast."""

    iteration: int
    target_ev_per_angstrom: float
    labels: int | None
    probability_unreachable: float


@dataclass(frozen=True)
class Quality:
    """What was measured after one iteration; errors in eV/Å, the barriers' in eV."""

    iteration: int
    labels: int
    failed: int
    force_rmse_ev_per_angstrom: float | None
    force_rmse_set: str | None
    control_force_rmse_ev_per_angstrom: float | None
    miss_rate: float | None
    miss_rate_high: float | None
    n_accepted: int
    risk: float | None
    tolerance_ev_per_angstrom: float | None
    barrier_error_ev: Mapping[str, float]
    certificate: Certificate | None = None


@dataclass(frozen=True)
class Method:
    """The uncertainty method that drives, and why."""

    name: str
    reason: str


def quality_of(files: CampaignFiles) -> list[Quality]:
    """Return the rows of the evaluated iterations, in order."""
    rows = (_row(k, files.of_iteration(k, "metrics.json")) for k in files.iterations())
    return [row for row in rows if row is not None]


def method_of(files: CampaignFiles) -> Method | None:
    """Return the method of the latest decision; None before there is one."""
    for k in reversed(files.iterations()):
        chosen = mapping(files.of_iteration(k, "decision.json").get("acquire_with"))
        if text(chosen.get("method")):
            return Method(text(chosen["method"]), text(chosen.get("reason")))
    return None


def plan_of(files: CampaignFiles) -> Plan | None:
    """Return the plan of the latest decision; None where it has none, or no target."""
    for k in reversed(files.iterations()):
        decision = files.of_iteration(k, "decision.json")
        if not decision:
            continue
        plan = mapping(decision.get("plan"))
        target, chance = number(plan.get("target_ev_per_angstrom")), number(plan.get("probability_unreachable"))
        if target is None or chance is None:
            return None
        return Plan(k, target, whole(mapping(plan.get("labels_to_target")).get("q50")), chance)
    return None


def _row(iteration: int, metrics: Mapping[str, object]) -> Quality | None:
    labels, errors, miss = (mapping(metrics.get(key)) for key in ("labels", "errors", "miss_rate"))
    if whole(labels.get("total")) is None:
        return None
    # A test set tells more than the validation set (used to stop the training), that more than the training set.
    value, measured = None, None
    for name in ("test", "valid", "train"):
        value = number(mapping(errors.get(name)).get(_FORCE))
        if value is not None:
            measured = name
            break
    barriers = {
        text(name): error
        for name, about in mapping(metrics.get("physics")).items()
        if (error := number(mapping(about).get("barrier_error_ev"))) is not None
    }
    return Quality(
        iteration=iteration,
        labels=int(amount(labels["total"])),
        failed=int(amount(labels.get("failed"))),
        force_rmse_ev_per_angstrom=value,
        force_rmse_set=measured,
        control_force_rmse_ev_per_angstrom=number(mapping(errors.get("control")).get(_FORCE)),
        miss_rate=number(miss.get("value")),
        miss_rate_high=number(miss.get("high")),
        n_accepted=int(amount(miss.get("n_accepted"))),
        risk=number(miss.get("risk")),
        tolerance_ev_per_angstrom=number(miss.get("tolerance_ev_per_angstrom")),
        barrier_error_ev=barriers,
        certificate=_certificate(mapping(metrics.get("certificate"))),
    )


def _certificate(found: Mapping[str, object]) -> Certificate | None:
    accepted, bound = number(found.get("accepted_fraction")), number(found.get("bound"))
    if accepted is None or bound is None:
        return None
    return Certificate(
        holds=found.get("holds") is True,
        accepted_fraction=accepted,
        bound=bound,
        n_control=int(amount(found.get("n_control"))),
        drifted=mapping(found.get("drift")).get("drifted") is True,
    )
