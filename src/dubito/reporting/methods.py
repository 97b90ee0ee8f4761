"""Section: the uncertainty methods side by side on the new labels, and which of them drives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dubito.config.uncertainty import AUTO, CONTROLS
from dubito.reporting import charts
from dubito.reporting.blocks import Block, Chart, Figure, Section, Text
from dubito.reporting.collect import Campaign, Iteration
from dubito.reporting.methods_tables import (
    VALUE,
    against,
    calibration,
    cost,
    fits,
    history,
    min_structures,
    n_of,
    ranked,
    ranking,
    scores_of,
)
from dubito.reporting.words import count, number, percent

TITLE = "Ways to doubt, compared"
# Iterations drawn and listed, the latest.
SHOWN = 4
# Structures below which percentile intervals are too narrow (dubito.metrics.bootstrap).
_FEW = 20
_WORDS = {"ranking": "decision value", "likelihood": "NLL"}


def methods(campaign: Campaign) -> Section:
    """Return the section that compares the methods."""
    judged = [iteration for iteration in campaign.iterations if scores_of(iteration)]
    blocks: list[Block] = [Text(_introduction(campaign, judged))]
    if judged:
        last = judged[-1]
        if len(scores_of(last)) > 1:
            blocks.append(_figure(judged[-SHOWN:]))
        blocks += [ranking(last, "new"), calibration(last, "new")]
        blocks += _control_slice(last)
        blocks += [table for table in (*against(last), cost(last)) if table is not None]
    remarks = fits(campaign)
    if remarks is not None:
        blocks.append(remarks)
    if campaign.config.uncertainty.acquire_with == AUTO:
        blocks.append(history(campaign))
    return Section("methods", TITLE, blocks)


def _control_slice(iteration: Iteration) -> list[Block]:
    if len(scores_of(iteration)) < 2 or not scores_of(iteration, "control"):
        return []
    n = n_of(iteration, "control")
    if n < min_structures(iteration):
        return [Text(f"The control slice of iteration {iteration.index} has n = {n}: too few to compare.")]
    return [ranking(iteration, "control"), calibration(iteration, "control")]


def _introduction(campaign: Campaign, judged: Sequence[Iteration]) -> str:
    fitted = campaign.config.uncertainty.methods
    if not judged:
        return (
            "The methods are compared on new labels, by the model that had not seen them: from iteration 1 on. Fitted: "
            f"{', '.join(name for name in fitted if name not in campaign.last.unfitted)}."
        )
    last, scores = judged[-1], scores_of(judged[-1])
    n = n_of(last, "new")
    if len(scores) == 1:
        (name,) = scores
        value = number(scores[name][VALUE]["value"], 2)
        return (
            f"One method is fitted, {name}: on the {count(n, 'new structure')} of iteration {last.index} its decision "
            f"value is {value} (1 is a perfect ranking of the force errors, 0 chance). List more under "
            "uncertainty.methods, with the controls force_norm and constant, to see whether another does better."
        )
    return (
        f"{_best(last)} They are compared on the {count(n, 'new structure')} of iteration {last.index}, by the model "
        f"that had not seen them, which {last.driver} chose: that makes its own ranking harder, since what it chose is "
        "alike in its doubt."
    )


def _best(iteration: Iteration) -> str:
    """Say who is best by value, and how far that is more than chance."""
    order = ranked(iteration)
    if not order:
        return "No ranking could be measured: the errors or the doubts are not all numbers."
    name = order[0]
    found = scores_of(iteration)[name][VALUE]
    tail = ", though it is only a control" if name in CONTROLS else ""
    text = f"By value {name} ranks the force errors best{tail} (decision value {number(found['value'], 2)}"
    if found.get("low") is not None and found.get("high") is not None:
        text += f", interval {number(found['low'], 2)} to {number(found['high'], 2)}"
    return f"{text}); {_told_apart(iteration, name)}."


def _told_apart(iteration: Iteration, name: str) -> str:
    best = iteration.metrics["bakeoff"].get("best") or {}
    others = best.get("not_told_from")
    if others is None or best.get("method") != name:
        n = n_of(iteration, "new")
        return f"{count(n, 'structure')} {'is' if n == 1 else 'are'} too few to tell it from the others"
    return f"not told apart from: {', '.join(others)}" if others else "told apart from all others"


def _beaten(iteration: Iteration) -> str:
    """Say, for ranking and for likelihood, which methods are shown to be better than the controls, which are not."""
    bakeoff, n = iteration.metrics["bakeoff"], n_of(iteration, "new")
    fitted = set(scores_of(iteration))
    if fitted <= set(CONTROLS):
        return "Only controls are fitted, so there is nothing they could be beaten by."
    if not fitted & set(CONTROLS):
        return "No control is fitted, so nothing shows whether any of this beats a trivial doubt: add force_norm."
    if n < min_structures(iteration):
        return f"Whether any of them beats the controls is open: {count(n, 'structure')}, too few to compare."
    text = " ".join(f"By {word}, {_groups(bakeoff['against_controls'], key)}." for key, word in _WORDS.items())
    if n < _FEW:
        text += f" Intervals of {count(n, 'structure')} are too narrow, so this is provisional."
    return text


def _groups(found: Mapping[str, Any], criterion: str) -> str:
    """Return the three groups of methods, from the intervals of their differences."""
    better, unclear, worse, silent = [], [], [], []
    for method, by_control in found.items():
        by = {control: values[criterion] for control, values in by_control.items() if criterion in values}
        behind = [control for control, i in by.items() if i["high"] is not None and i["high"] < 0]
        open_ = [c for c, i in by.items() if c not in behind and not (i["low"] is not None and i["low"] > 0)]
        if not by:
            silent.append(method)
        elif behind:
            worse.append(f"{method} (than {', '.join(behind)})")
        elif open_:
            unclear.append(f"{method} (than {', '.join(open_)})")
        else:
            better.append(method)
    groups = {
        "shown better than all controls": better,
        "not shown better": unclear,
        "shown worse": worse,
        "not to be compared": silent,
    }
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in groups.items() if names)


def _figure(judged: Sequence[Iteration]) -> Figure:
    last = judged[-1]
    order = ranked(last) + [name for name in scores_of(last) if name not in ranked(last)]
    rows = [
        {
            "method": name,
            "iteration": f"iteration {iteration.index}",
            **{key: found[VALUE].get(key) for key in ("value", "low", "high")},
        }
        for iteration in judged
        for name, found in scores_of(iteration).items()
        if name in order and found[VALUE]["value"] is not None
    ]
    finding = _beaten(last)
    n = ", ".join(f"{count(n_of(i, 'new'), 'structure')} in iteration {i.index}" for i in judged)
    return Figure(
        id="method-values",
        title="Whose doubt is worth most?",
        finding=finding,
        caption="Decision value of each method on the new structures of each iteration, by the model that had not seen "
        f"them; n = {n}. The dashed line is chance. {_about_intervals(rows, last)}",
        charts=[
            Chart(charts.method_values(rows, order, list(dict.fromkeys(row["iteration"] for row in rows))), finding)
        ],
    )


def _about_intervals(rows: Sequence[Mapping[str, Any]], last: Iteration) -> str:
    if all(row["low"] is None for row in rows):
        return f"No intervals: they need {min_structures(last)} structures."
    return (
        f"Lines: the {percent(last.metrics['bakeoff']['level'])} interval over structures, where there are at least "
        f"{min_structures(last)}; with fewer than some twenty it is too narrow. Methods whose intervals overlap may "
        "still differ: they are compared on the same resampled structures."
    )
