"""Tables of the uncertainty methods: head and rows, from the study's JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]
TEMPERATURES = ("300", "600", "1200")


def _two(value: float | None) -> str:
    """Write with two decimals, without the zero before the point; nothing for what does not exist."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _three(values: Json | None, form: Callable[[float | None], str] = _two) -> str:
    return " / ".join(form((values or {}).get(t)) for t in TEMPERATURES)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"


def _methods(content: Json, key: str) -> Iterator[tuple[str, Json]]:
    """Yield name and row, best AUROC first, controls marked."""
    found = content.get(key, {})
    for name in sorted(found, key=lambda name: -found[name]["auroc_error"]):
        yield (f"*{name}* (control)" if name in content.get("controls", []) else name), found[name]


def ranking(content: Json, key: str) -> Table:
    """How well each method ranks errors."""
    head = ["method", "AUROC (error > tolerance)", "Spearman 300 / 600 / 1200 K", "within elements", "AUSE",
            "gain at 10 % refused, %",
            "AUROC of 600 K / 1200 K frames"]  # fmt: skip
    rows = [
        [name, _two(one["auroc_error"]), _three(one["spearman_within"]), _three(one["spearman_within_elements"]),
         _two(one["ause"]),
         _percent(one["gain_share_10"]),
         f"{_two(one['shift_auroc']['600_mean'])} / {_two(one['shift_auroc']['1200_mean'])}"]
        for name, one in _methods(content, key)
    ]  # fmt: skip
    return head, rows


def calibration(content: Json, key: str) -> Table:
    """Whether each method keeps its word."""
    head = ["method", "area before", "area after", "NLL", "95 % interval covers, %", "conformal, %", "mean growth"]
    rows = [
        [name, _three(one["miscalibration_area_before"]), _three(one["miscalibration_area"]), _three(one["nll"]),
         _three(one["coverage_95"], _percent), _three(one["conformal_95_component"], _percent),
         _two(one["growth_1200_over_300"])]
        for name, one in _methods(content, key)
    ]  # fmt: skip
    return head, rows


def cost(content: Json, key: str) -> Table:
    """What each method costs."""
    head = ["method", "model evaluations", "CPU time, of one model's", "fit, CPU s"]
    rows = [
        [name, f"{one['cost_model_evaluations']:g}", f"{one['cost_time']:.1f}", f"{one['fit_cpu_s']:.1f}"]
        for name, one in _methods(content, key)
    ]
    return head, rows


def spread(content: Json, key: str) -> Table:
    """The same, seed by seed."""
    head = ["method", "AUROC by seed", "Spearman at 300 K", "at 600 K", "at 1200 K"]
    rows = [
        [name, " / ".join(_two(seed["auroc_error"]) for seed in one["seeds"])]
        + [" / ".join(_two(seed["spearman_within"][t]) for seed in one["seeds"]) for t in TEMPERATURES]
        for name, one in _methods(content, key)
    ]
    return head, rows


def goals(content: Json) -> Table:
    """The goals, met or not."""
    rows = []
    for name, found in content.get("goals", {}).items():
        what = "; ".join(f"{key}: {_plain(value)}" for key, value in found.items() if key != "met")
        rows.append([name, what, "yes" if found["met"] else "**no**"])
    return ["goal", "found", "met"], rows


def settings(content: Json) -> Table:
    """One setting of the Gaussian process changed at a time."""
    head = ["settings", "growth 1200 K / 300 K: energies", "forces", "Spearman of energies' doubt", "of forces' doubt",
            "AUROC of 1200 K frames, energies", "fit, CPU s"]  # fmt: skip
    rows = [
        [name, _two(one["growth_energies"]), _two(one["growth_1200_over_300"]), _three(one["spearman_energies"]),
         _three(one["spearman_within"]), _two(one["shift_energies"]), f"{one['fit_cpu_s']:.0f}"]
        for name, one in content.get("rows", {}).items()
    ]  # fmt: skip
    return head, rows


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return " against ".join(_plain(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
