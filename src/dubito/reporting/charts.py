"""The charts, as Vega-Lite specifications made with Altair.

Colours are those of Okabe and Ito, told apart by colour-blind readers; sets differ in shape as well.
Values come in display units (meV, meV/Å).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]
Spec = dict[str, Any]

REFERENCE, PREDICTION = "#000000", "#0072B2"
# Name in metrics.json: words for the reader, colour, shape.
SETS: dict[str, tuple[str, str, str]] = {
    "train": ("training", "#8a8a8a", "circle"),
    "valid": ("validation", "#0072B2", "square"),
    "test": ("test", "#009E73", "triangle-up"),
    "new": ("new, unseen", "#D55E00", "diamond"),
    "control": ("control, unseen", "#CC79A7", "cross"),
}
CONFIG: Spec = {
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif",
    "background": "white",
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelColor": "#1a1a1a",
        "titleColor": "#1a1a1a",
        "labelSeparation": 6,
        "gridColor": "#e4e4e4",
        "domainColor": "#555555",
        "tickColor": "#555555",
    },
    "legend": {"labelFontSize": 12, "labelLimit": 220, "labelColor": "#1a1a1a"},
    "view": {"stroke": None},
}
TALL, SMALL = 340, 170
_BARRIER = "barrier error (meV)"


def finish(chart: Any, height: int) -> Spec:
    """Return the specification; its schema is checked in tests, since checking is most of the time."""
    spec: Spec = chart.properties(width="container", height=height).to_dict(validate=False)
    spec.pop("config", None)
    spec.pop("$schema", None)
    return spec


def _set_scales(names: Sequence[str]) -> tuple[Any, Any]:
    import altair as alt

    known = [SETS[name] for name in names]
    words = [word for word, _, _ in known]
    legend = alt.Legend(title=None, orient="top", columns=2, symbolOpacity=1)
    color = alt.Color("set:N", scale=alt.Scale(domain=words, range=[colour for _, colour, _ in known]), legend=legend)
    shape = alt.Shape("set:N", scale=alt.Scale(domain=words, range=[shape for _, _, shape in known]), legend=legend)
    return color, shape


def learning_curve(rows: Rows, names: Sequence[str]) -> Spec:
    """Force RMSE against labels; rows ``labels, rmse, set, iteration``, meV/Å."""
    import altair as alt

    color, shape = _set_scales(names)
    chart = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("labels:Q", title="labels the model knew", scale=alt.Scale(zero=False, nice=True)),
        y=alt.Y("rmse:Q", title="force RMSE (meV/Å)", scale=alt.Scale(type="log", nice=True)),
        color=color,
        tooltip=["set:N", "iteration:Q", "labels:Q", alt.Tooltip("rmse:Q", format=".3~g")],
    )
    return finish(chart.mark_line() + chart.mark_point(filled=True, size=70, opacity=1).encode(shape=shape), TALL)


def profile(rows: Rows, domain: tuple[float, float], axis_title: str, *, small: bool) -> Spec:
    """Energy along a path; rows ``coordinate, reference, predicted, low, high``, meV."""
    import altair as alt

    names = ["reference", "prediction", "prediction ± 2σ"]
    scale = alt.Scale(domain=names, range=[REFERENCE, PREDICTION, "#9fc9e3"])
    legend = None if small else alt.Legend(title=None, orient="top", symbolOpacity=1, symbolType="square")

    def of(layer: Any, name: str) -> Any:
        """Colour a layer by its name, so that the legend explains it."""
        return layer.transform_calculate(name=f"'{name}'").encode(color=alt.Color("name:N", scale=scale, legend=legend))

    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("coordinate:Q", title=None if small else axis_title, scale=alt.Scale(zero=False, nice=False, padding=8))
    )

    def energy(name: str) -> Any:
        title = "meV" if small else "energy above the minimum (meV)"
        return alt.Y(f"{name}:Q", title=title, scale=alt.Scale(domain=list(domain), nice=True))

    tooltip = [
        alt.Tooltip("coordinate:Q", format=".3~g"),
        *(alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("reference", "predicted", "low", "high")),
    ]
    layers = []
    if rows and rows[0].get("low") is not None:
        layers.append(of(base.mark_area(clip=True).encode(y=energy("low"), y2="high:Q"), names[2]))
    layers.append(of(base.mark_line(strokeWidth=2, clip=True).encode(y=energy("predicted")), names[1]))
    dots = base.mark_point(filled=True, size=25 if small else 60, opacity=1)
    layers.append(of(dots.encode(y=energy("reference"), tooltip=tooltip), names[0]))
    return finish(alt.layer(*layers), SMALL if small else TALL)


def barrier_errors(rows: Rows) -> Spec:
    """Signed barrier error by iteration with ±2σ; rows ``iteration, error, low, high``, meV."""
    import altair as alt

    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("iteration:O", title="iteration", axis=alt.Axis(labelAngle=0))
    )
    zero = (
        alt.Chart(alt.Data(values=[{"zero": 0}]))
        .mark_rule(color="#555555", strokeDash=[4, 3])
        .encode(y=alt.Y("zero:Q", title=_BARRIER))
    )
    layers = [zero]
    if any(row.get("low") is not None for row in rows):
        layers.append(
            base.mark_rule(color=PREDICTION, strokeWidth=2).encode(y=alt.Y("low:Q", title=_BARRIER), y2="high:Q")
        )
    points = base.mark_point(filled=True, size=80, color=PREDICTION, opacity=1).encode(
        y=alt.Y("error:Q", title=_BARRIER),
        tooltip=["iteration:O", alt.Tooltip("error:Q", format="+.3~g")],
    )
    return finish(alt.layer(*layers, points), 200)


def parity(rows: Rows, names: Sequence[str], domain: tuple[float, float], unit: str) -> Spec:
    """Prediction against reference; rows ``reference, predicted, set``."""
    import altair as alt

    color, shape = _set_scales(names)
    scale = alt.Scale(domain=list(domain), nice=False)
    points = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_point(filled=True, size=22, opacity=0.6)
        .encode(
            x=alt.X("reference:Q", title=f"reference ({unit})", scale=scale),
            y=alt.Y("predicted:Q", title=f"prediction ({unit})", scale=scale),
            color=color,
            shape=shape,
        )
    )
    return finish(_diagonal(domain, "reference", "predicted") + points, TALL)


def parity_density(rows: Rows, domain: tuple[float, float], unit: str) -> Spec:
    """Prediction against reference as counts; rows ``x0, x1, y0, y1, n``."""
    scale = {"domain": list(domain), "nice": False}
    return finish(
        _density(rows, scale, f"reference ({unit})", f"prediction ({unit})") + _diagonal(domain, "x0", "y0"), TALL
    )


def doubt(rows: Rows, names: Sequence[str], domain: tuple[float, float]) -> Spec:
    """Force error against uncertainty of each atom, log-log; rows ``uncertainty, error, set``, meV/Å."""
    import altair as alt

    color, shape = _set_scales(names)
    points = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_point(filled=True, size=22, opacity=0.6, clip=True)
        .encode(
            x=alt.X("uncertainty:Q", title="force uncertainty (meV/Å)", scale=_log(domain), axis=_powers(domain)),
            y=alt.Y("error:Q", title="force error (meV/Å)", scale=_log(domain), axis=_powers(domain)),
            color=color,
            shape=shape,
        )
    )
    return finish(_diagonal(domain, "uncertainty", "error") + points, TALL)


def doubt_density(rows: Rows, domain: tuple[float, float]) -> Spec:
    """Force error against uncertainty as counts, log-log; rows ``x0, x1, y0, y1, n``."""
    scale = {"type": "log", "domain": list(domain), "nice": False}
    chart = _density(rows, scale, "force uncertainty (meV/Å)", "force error (meV/Å)")
    return finish(chart + _diagonal(domain, "x0", "y0"), TALL)


def method_values(rows: Rows, order: Sequence[str], iterations: Sequence[str]) -> Spec:
    """Decision value of each method by iteration; rows ``method, iteration, value, low, high``."""
    import altair as alt

    shades = ["#9fc9e3", "#56B4E9", PREDICTION, "#003a5c"][-len(iterations) :] if len(iterations) > 1 else [PREDICTION]
    shapes = ["circle", "square", "triangle-up", "diamond"][-len(iterations) :]
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1) if len(iterations) > 1 else None
    color = alt.Color("iteration:N", scale=alt.Scale(domain=list(iterations), range=shades), legend=legend)
    shape = alt.Shape("iteration:N", scale=alt.Scale(domain=list(iterations), range=shapes), legend=legend)
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        y=alt.Y("method:N", sort=list(order), title=None, axis=alt.Axis(labelLimit=150)),
        yOffset=alt.YOffset("iteration:N", sort=list(iterations)),
        color=color,
    )
    title = "decision value (0: chance, 1: perfect)"
    intervals = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("value:Q", title=title),
        shape=shape,
        tooltip=[
            "method:N",
            "iteration:N",
            *(alt.Tooltip(f"{key}:Q", format=".2f") for key in ("value", "low", "high")),
        ],
    )
    chance = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color="#555555", strokeDash=[4, 3]).encode(x="zero:Q")
    return finish(alt.layer(chance, intervals, points), max(120, 14 * (1 + len(iterations)) * len(order)))


def stage_bars(rows: Rows) -> Spec:
    """Wall time by stage; rows ``stage, wall_s, cpu_s``."""
    import altair as alt

    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar(color=PREDICTION)
        .encode(
            y=alt.Y("stage:N", sort=None, title=None, axis=alt.Axis(labelLimit=150)),
            x=alt.X("wall_s:Q", title="wall time of all jobs (s)"),
            tooltip=["stage:N", alt.Tooltip("wall_s:Q", format=".3~g"), alt.Tooltip("cpu_s:Q", format=".3~g")],
        )
    )
    return finish(chart, 26 * max(2, len(rows)))


def _log(domain: tuple[float, float]) -> Any:
    import altair as alt

    return alt.Scale(type="log", domain=list(domain), nice=False)


def _powers(domain: Sequence[float]) -> Any:
    import altair as alt

    low, high = (round(math.log10(value)) for value in domain)
    return alt.Axis(format="~g", values=[10.0**power for power in range(low, high + 1)])


def _diagonal(domain: tuple[float, float], x: str, y: str) -> Any:
    import altair as alt

    ends = [{x: value, y: value} for value in domain]
    line = alt.Chart(alt.Data(values=ends)).mark_line(color="#555555", strokeDash=[4, 3], strokeWidth=1.5)
    return line.encode(x=f"{x}:Q", y=f"{y}:Q")


def _density(rows: Rows, scale: Spec, x_title: str, y_title: str) -> Any:
    import altair as alt

    axis = _powers(scale["domain"]) if scale.get("type") == "log" else alt.Axis()
    return (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_rect(clip=True)
        .encode(
            x=alt.X("x0:Q", title=x_title, scale=alt.Scale(**scale), axis=axis),
            x2="x1:Q",
            y=alt.Y("y0:Q", title=y_title, scale=alt.Scale(**scale), axis=axis),
            y2="y1:Q",
            color=alt.Color(
                "n:Q",
                scale=alt.Scale(type="log", scheme="viridis"),
                legend=alt.Legend(title="points", orient="top", gradientLength=160),
            ),
            tooltip=["n:Q"],
        )
    )
