"""Tables of the section that compares the uncertainty methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dubito.config.uncertainty import CONTROLS, CONTROLS_WITHOUT_RANK
from dubito.reporting.blocks import Table
from dubito.reporting.collect import Campaign, Iteration
from dubito.reporting.words import MISSING, count, milli, number, percent

VALUE = "decision_value"
# Of campaigns measured before the number was written down.
_MIN_STRUCTURES = 6
_RANKING = (
    "Decision value: of the fall of the force error that a perfect ranking of the atoms would bring when the most "
    "doubtful are refused, the share this one brings; 1 is perfect, 0 chance, below 0 misleading. {interval}"
    "Spearman: rank correlation of doubt and error by atom. AUROC: chance that an "
    "atom with a force error above {tolerance} meV/Å is doubted more than one below; 0.5 is chance. AUSE: area to the "
    "perfect ranking, 0 is best."
)
_CALIBRATION = (
    "Area: between claimed and observed coverage, 0 is best. 68 % and 95 %: share of force components inside that "
    "interval. NLL: mean negative log-likelihood of a force component in nats, lower is better. rms σ: sharpness; of "
    "methods as well calibrated, the sharper is the better."
)
_SLICE = "As above. Drawn at random, so it favours nobody, but small."
_SETS = {"new": "all new structures", "control": "the control slice alone"}


def scores_of(iteration: Iteration, name: str = "new") -> Mapping[str, Any]:
    """Return the measures by method on one set of the bake-off."""
    found: Mapping[str, Any] = iteration.metrics.get("bakeoff", {}).get("sets", {}).get(name, {}).get("methods", {})
    return found


def n_of(iteration: Iteration, name: str) -> int:
    """Return how many structures the methods are compared on."""
    return int(iteration.metrics["bakeoff"]["sets"][name]["n_structures"])


def min_structures(iteration: Iteration) -> int:
    """Return the number of structures below which there are no intervals."""
    return int(iteration.metrics["bakeoff"].get("min_structures", _MIN_STRUCTURES))


def ranked(iteration: Iteration, name: str = "new") -> list[str]:
    """Return the methods by falling decision value."""
    values = {method: found[VALUE]["value"] for method, found in scores_of(iteration, name).items()}
    known = {method: value for method, value in values.items() if value is not None}
    return sorted(known, key=lambda method: -known[method])


def ranking(iteration: Iteration, name: str) -> Table:
    """Return how well the methods rank errors."""
    has_interval = n_of(iteration, name) >= min_structures(iteration)
    level = percent(iteration.metrics["bakeoff"]["level"])
    interval = f"In brackets: the {level} interval over structures. " if has_interval else ""
    tolerance = milli(iteration.metrics["miss_rate"]["tolerance_ev_per_angstrom"])
    note = _RANKING.format(interval=interval, tolerance=tolerance) if name == "new" else _SLICE
    columns = {
        "decision value": lambda found: _with_interval(found[VALUE]),
        "Spearman": lambda found: _with_interval(found["spearman"]),
        "AUROC": lambda found: _with_interval(found["auroc"]),
        "AUSE": lambda found: number(found["ause"]["value"], 2),
    }
    return _table(iteration, name, "Ranking", columns, note)


def calibration(iteration: Iteration, name: str) -> Table:
    """Return how well the methods' standard deviations fit the errors."""
    columns = {
        "area": lambda found: _with_interval(found["miscalibration_area"]),
        "68 %": lambda found: percent(found["coverage_68"]["value"]),
        "95 %": lambda found: percent(found["coverage_95"]["value"]),
        "NLL": lambda found: _with_interval(found["nll"]),
        "rms σ meV/Å": lambda found: milli(found["sharpness_ev_per_angstrom"]["value"]),
    }
    return _table(iteration, name, "Calibration", columns, _CALIBRATION if name == "new" else _SLICE)


def _table(iteration: Iteration, name: str, what: str, columns: Mapping[str, Any], note: str) -> Table:
    scores, about = scores_of(iteration, name), iteration.metrics["bakeoff"]["sets"][name]
    order = ranked(iteration, name)
    order = sorted(scores, key=lambda m: (m in CONTROLS, order.index(m) if m in order else len(order)))
    n = count(about["n_structures"], "structure")
    whole = about.get("n_structures_all", about["n_structures"])
    if whole > about["n_structures"]:
        n += f" drawn of {whole:,}"
    return Table(
        caption=f"{what}, {_SETS[name]}: iteration {iteration.index}, {n}, {count(about['n_atoms'], 'atom')}",
        headers=("method", *columns),
        rows=[
            (f"{m} (control)" if m in CONTROLS else m, *(cell(scores[m]) for cell in columns.values())) for m in order
        ],
        note=note,
    )


def _with_interval(found: Mapping[str, Any], digits: int = 2) -> str:
    text = number(found["value"], digits)
    if found.get("low") is None or found.get("high") is None:
        return text
    return f"{text} ({number(found['low'], digits)} to {number(found['high'], digits)})"


def against(iteration: Iteration) -> list[Table]:
    """Return how far the methods are ahead of the controls, by criterion; nothing without controls or intervals."""
    found = iteration.metrics["bakeoff"].get("against_controls", {})
    controls = list(dict.fromkeys(control for by in found.values() for control in by))
    tables = []
    for criterion, word in (("ranking", "decision value"), ("likelihood", "NLL")):
        rows = [
            (method, *(_ahead(by.get(control, {}).get(criterion)) for control in controls))
            for method, by in found.items()
        ]
        if any(cell != MISSING for row in rows for cell in row[1:]):
            caption = f"Ahead of the controls in {word}: iteration {iteration.index}"
            tables.append(Table(caption, ("method", *controls), rows))
    note = (
        "Difference on the same resampled structures, above 0 where the method is better; yes or no where the whole "
        "interval says so. A control knows nothing of the model's limits: force_norm is the size of the predicted "
        "force, distance that to the training atoms, constant one value for all, random noise. A method that does not "
        "beat them is not worth its cost."
    )
    return [*tables[:-1], Table(tables[-1].caption, tables[-1].headers, tables[-1].rows, note)] if tables else []


def _ahead(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return MISSING
    low, high = found["low"], found["high"]
    word = "yes" if low is not None and low > 0 else "no" if high is not None and high < 0 else "open"
    return f"{word}: {_with_interval(found)}"


def cost(iteration: Iteration) -> Table | None:
    """Return what the methods cost; None where nobody took the time."""
    costs = iteration.metrics["bakeoff"].get("cost", {})
    if not costs:
        return None
    return Table(
        caption=f"Cost of the methods that judged iteration {iteration.index}",
        headers=("method", "evaluations", "evaluations alone", "fit s", "prediction s per 1,000 atoms"),
        rows=[
            (
                method,
                number(found["model_evaluations"]),
                number(found["model_evaluations_alone"]),
                number(found["fit_cpu_s"]),
                number(found["predict_cpu_s_per_1000_atoms"]),
            )
            for method, found in costs.items()
        ],
        note="Evaluations: of one network with forces, for one prediction, the members' own included. Alone: what the "
        "method would need if nothing else wanted the members. Seconds are of processor time, as measured in this "
        "campaign beside whatever else the machine did.",
    )


def fits(campaign: Campaign) -> Table | None:
    """Return what is to be known of the fits that judged the latest batch, and of those to the latest model."""
    rows = [
        (str(iteration.index), method, remark)
        for iteration in campaign.iterations[-2:]
        for method, about in iteration.fits.items()
        for remark in _remarks(method, about)
    ]
    if not rows:
        return None
    return Table(
        caption="Remarks on the latest fits",
        headers=("iteration", "method", "remark"),
        rows=rows,
        note="Iteration: of the model fitted to; it judges the batch of the next. A method that could not be fitted is "
        "left out of its predictions and of that comparison.",
    )


def _remarks(method: str, about: Mapping[str, Any]) -> list[str]:
    if "not_fitted" in about:
        return [f"not fitted: {about['not_fitted']}"]
    flat = about.get("flat") and method not in CONTROLS_WITHOUT_RANK
    notes = [f"calibration: {note}" for note in about.get("calibration", {}).get("notes", [])]
    return ["doubts all atoms alike, so it ranks nothing"] * bool(flat) + notes


def history(campaign: Campaign) -> Table:
    """Return which method drove each iteration, and why."""
    first = campaign.iterations[0]
    rows = [(str(first.index), MISSING, "Nothing is ranked in the first iteration.")]
    for before, iteration in zip(campaign.iterations[:-1], campaign.iterations[1:], strict=True):
        rows.append((str(iteration.index), iteration.driver, str(before.chosen.get("reason", MISSING))))
    following = campaign.last.chosen
    if following and not campaign.last.decision.get("stop", False):
        rows.append((f"{campaign.last.index + 1} (next)", str(following["method"]), str(following["reason"])))
    auto = campaign.config.uncertainty.auto
    return Table(
        caption="Which method drives, and why (uncertainty.acquire_with: auto)",
        headers=("iteration", "driver", "reason"),
        rows=rows,
        note="Exploring stops and selection ranks by the doubt of the driver. A challenger takes over when it is "
        f"better by more than {auto.margin:g} in decision value on the latest two batches, at the lower end of a "
        f"{percent(auto.level)} interval that is widened for the number of challengers; with fewer than "
        f"{auto.min_structures} structures nothing changes.",
    )
