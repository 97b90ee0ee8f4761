"""Section: the uncertainty methods side by side on the new labels, and which of them drives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dubito.config.uncertainty import AUTO, CONTROLS
from dubito.reporting import charts
from dubito.reporting.blocks import Block, Chart, Figure, Section, Table, Text
from dubito.reporting.collect import Campaign, Iteration
from dubito.reporting.words import MISSING, count, milli, number, percent

TITLE = "Ways to doubt, compared"
# Iterations drawn and listed, the latest.
SHOWN = 4
_VALUE = "decision_value"
_HEADERS = (
    "method", "decision value", "Spearman", "AUROC", "AUSE", "area", "68 %", "95 %", "NLL", "rms σ meV/Å",
)  # fmt: skip
_MEANING = (
    "Decision value: of the fall of the force error that a perfect ranking of the atoms would bring when the most "
    "doubtful are refused, the share this one brings; 1 is perfect, 0 chance, below 0 misleading. In brackets: the "
    "{level} interval over structures. Spearman: rank correlation of doubt and error by atom. AUROC: chance that an "
    "atom with a force error above {tolerance} meV/Å is doubted more than one below; 0.5 is chance. AUSE: area to the "
    "perfect ranking, 0 is best. Area: between claimed and observed coverage, 0 is best. 68 % and 95 %: share of force "
    "components inside that interval. NLL: mean negative log-likelihood of a force component in nats, lower is better. "
    "rms σ: sharpness; of methods as well calibrated, the sharper is the better."
)


def methods(campaign: Campaign) -> Section:
    """Return the section that compares the methods."""
    judged = [iteration for iteration in campaign.iterations if _scores(iteration)]
    blocks: list[Block] = [Text(_introduction(campaign, judged))]
    if judged:
        last = judged[-1]
        if len(_scores(last)) > 1:
            blocks.append(_figure(judged[-SHOWN:]))
        blocks.append(_table(last, "new", "All new structures"))
        if _scores(last, "control") and len(_scores(last)) > 1:
            blocks.append(_table(last, "control", "The control slice alone, drawn at random"))
        blocks += [table for table in (_controls(last), _cost(last)) if table is not None]
    if campaign.config.uncertainty.acquire_with == AUTO:
        blocks.append(_history(campaign))
    return Section("methods", TITLE, blocks)


def _scores(iteration: Iteration, name: str = "new") -> Mapping[str, Any]:
    found: Mapping[str, Any] = iteration.metrics.get("bakeoff", {}).get("sets", {}).get(name, {}).get("methods", {})
    return found


def _introduction(campaign: Campaign, judged: Sequence[Iteration]) -> str:
    fitted = campaign.config.uncertainty.methods
    if not judged:
        return (
            "The methods are compared on new labels, by the model that had not seen them: from iteration 1 on. Fitted: "
            f"{', '.join(fitted)}."
        )
    last, scores = judged[-1], _scores(judged[-1])
    n = last.metrics["bakeoff"]["sets"]["new"]["n_structures"]
    if len(scores) == 1:
        (name,) = scores
        value = number(scores[name][_VALUE]["value"], 2)
        return (
            f"One method is fitted, {name}: on the {count(n, 'new structure')} of iteration {last.index} its decision "
            f"value is {value} (1 is a perfect ranking of the force errors, 0 chance). List more under "
            "uncertainty.methods, with the controls force_norm and constant, to see whether another does better."
        )
    return (
        f"{_best(last)} They are compared on the {count(n, 'new structure')} of iteration {last.index}, by the model "
        f"that had not seen them, which {last.driver} chose: that makes its own ranking harder, since what it chose is "
        f"alike in its doubt. {_beaten(last)}"
    ).strip()


def _best(iteration: Iteration) -> str:
    ranked = _ranked(iteration)
    if not ranked:
        return "No ranking could be measured: the errors or the doubts are not all numbers."
    name = ranked[0]
    value = _scores(iteration)[name][_VALUE]
    tail = ", though it is only a control" if name in CONTROLS else ""
    return f"{name} ranks the force errors best{tail} (decision value {_with_interval(value)})."


def _ranked(iteration: Iteration) -> list[str]:
    """Return the methods by falling decision value."""
    values = {name: found[_VALUE]["value"] for name, found in _scores(iteration).items()}
    known = {name: value for name, value in values.items() if value is not None}
    return sorted(known, key=lambda name: -known[name])


def _beaten(iteration: Iteration) -> str:
    """Say which methods a control ranks better than."""
    found = iteration.metrics["bakeoff"]["beaten_by"]
    beaten = {name: by["ranking"] for name, by in found.items() if by["ranking"]}
    if not found:
        return "No control is fitted, so nothing shows whether any of this beats a trivial doubt: add force_norm."
    if not beaten:
        return "Every method ranks better than the controls."
    said = "; ".join(f"{name} (by {', '.join(by)})" for name, by in beaten.items())
    return f"Beaten in ranking by a control: {said}. A method of which that stays true is not worth its cost."


def _with_interval(found: Mapping[str, Any], digits: int = 2) -> str:
    text = number(found["value"], digits)
    if found.get("low") is None or found.get("high") is None:
        return text
    return f"{text} ({number(found['low'], digits)} to {number(found['high'], digits)})"


def _figure(judged: Sequence[Iteration]) -> Figure:
    last = judged[-1]
    order = _ranked(last) + [name for name in _scores(last) if name not in _ranked(last)]
    rows = [
        {
            "method": name,
            "iteration": f"iteration {iteration.index}",
            **{key: found[_VALUE].get(key) for key in ("value", "low", "high")},
        }
        for iteration in judged
        for name, found in _scores(iteration).items()
        if name in order and found[_VALUE]["value"] is not None
    ]
    finding = _best(last)
    n = ", ".join(
        f"{count(i.metrics['bakeoff']['sets']['new']['n_structures'], 'structure')} in iteration {i.index}"
        for i in judged
    )
    return Figure(
        id="method-values",
        title="Whose doubt is worth most?",
        finding=finding,
        caption="Decision value of each method on the new structures of each iteration, by the model that had not seen "
        f"them, with the {percent(last.metrics['bakeoff']['level'])} interval over structures; n = {n}. The "
        "dashed line is chance. Methods whose intervals overlap may still differ: the choice of the driver compares "
        "them on the same resampled structures. With fewer than some twenty structures intervals are too narrow.",
        charts=[
            Chart(charts.method_values(rows, order, list(dict.fromkeys(row["iteration"] for row in rows))), finding)
        ],
    )


def _table(iteration: Iteration, name: str, caption: str) -> Table:
    scores, bakeoff = _scores(iteration, name), iteration.metrics["bakeoff"]
    order = sorted(scores, key=lambda m: (m in CONTROLS, -_sortable(scores[m][_VALUE]["value"])))
    about = bakeoff["sets"][name]
    tolerance = milli(iteration.metrics["miss_rate"]["tolerance_ev_per_angstrom"])
    return Table(
        caption=f"{caption}: iteration {iteration.index}, {count(about['n_structures'], 'structure')}, "
        f"{count(about['n_atoms'], 'atom')}",
        headers=_HEADERS,
        rows=[(f"{m} (control)" if m in CONTROLS else m, *_cells(scores[m])) for m in order],
        note=_MEANING.format(level=percent(bakeoff["level"]), tolerance=tolerance)
        if name == "new"
        else "As above. Drawn at random, so it favours nobody, but small.",
    )


def _sortable(value: float | None) -> float:
    return float("-inf") if value is None else value


def _cells(found: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    return (
        _with_interval(found[_VALUE]),
        _with_interval(found["spearman"]),
        _with_interval(found["auroc"]),
        number(found["ause"]["value"], 2),
        _with_interval(found["miscalibration_area"]),
        percent(found["coverage_68"]["value"]),
        percent(found["coverage_95"]["value"]),
        _with_interval(found["nll"]),
        milli(found["sharpness_ev_per_angstrom"]["value"]),
    )


def _controls(iteration: Iteration) -> Table | None:
    """Return how far the methods are ahead of the controls; None without controls."""
    against = iteration.metrics["bakeoff"].get("against_controls", {})
    rows = [
        (method, control, *(_ahead(by.get(criterion)) for criterion in ("ranking", "likelihood")))
        for method, found in against.items()
        for control, by in found.items()
    ]
    if not rows:
        return None
    return Table(
        caption=f"Against the controls: iteration {iteration.index}",
        headers=("method", "control", "ahead in decision value", "ahead in NLL"),
        rows=rows,
        note="Difference on the same resampled structures, above 0 where the method is better. A control knows nothing "
        "of the model's limits: force_norm is the size of the predicted force, distance that to the training atoms, "
        "constant one value for all, random noise. A method that does not beat them is not worth its cost.",
    )


def _ahead(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return MISSING
    word = "yes" if (found["low"] or 0) > 0 else "no" if (found["high"] or 0) < 0 else "open"
    return f"{word}: {_with_interval(found)}"


def _cost(iteration: Iteration) -> Table | None:
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
        half=True,
    )


def _history(campaign: Campaign) -> Table:
    """Return which method drove each iteration, and why."""
    first = campaign.iterations[0]
    rows = [(str(first.index), MISSING, "Nothing is ranked in the first iteration.")]
    for before, iteration in zip(campaign.iterations[:-1], campaign.iterations[1:], strict=True):
        rows.append((str(iteration.index), iteration.driver, str(_chosen(before).get("reason", MISSING))))
    following = _chosen(campaign.last)
    if following:
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


def _chosen(iteration: Iteration) -> Mapping[str, Any]:
    found: Mapping[str, Any] = iteration.decision.get("acquire_with", {})
    return found
