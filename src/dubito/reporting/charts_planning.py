"""The chart of the plan: the error so far, the forecast, and what earlier forecasts said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dubito.reporting.charts import PREDICTION, REFERENCE, Rows, Spec, finish

MEASURED, FORECAST, EARLIER, TARGET = "measured", "forecast, 80 %", "forecast earlier", "target"
_FAN, _GHOST, _AIM = "#9fc9e3", "#8a8a8a", "#D55E00"
_TICKS = (1, 2, 5)


def forecast(
    points: Rows,
    fan: Rows,
    ghosts: Rows,
    target: float | None,
    domain: tuple[float, float],
    reach: tuple[float, float],
) -> Spec:
    """Error against labels, log-log.

    Parameters
    ----------
    points : rows ``labels, error, low, high, iteration``, meV/Å
    fan, ghosts : rows ``labels, low, middle, high`` (and ``made`` of the ghosts: in which iteration), meV/Å
    target : meV/Å; None: no line
    domain, reach : of labels and of errors
    """
    import altair as alt

    shown = [MEASURED, *([FORECAST] if fan else []), *([EARLIER] if ghosts else []), *([TARGET] if target else [])]
    colour_of = {MEASURED: REFERENCE, FORECAST: _FAN, EARLIER: _GHOST, TARGET: _AIM}
    scale = alt.Scale(domain=shown, range=[colour_of[name] for name in shown])
    legend = alt.Legend(title=None, orient="top", columns=2, symbolOpacity=1, symbolType="square", labelLimit=260)

    def of(layer: Any, name: str) -> Any:
        """Colour a layer by its name, so that the legend explains it."""
        return layer.transform_calculate(name=f"'{name}'").encode(color=alt.Color("name:N", scale=scale, legend=legend))

    def x() -> Any:
        return alt.X(
            "labels:Q",
            title="labels the model knew",
            scale=alt.Scale(type="log", domain=list(domain), nice=False),
            axis=alt.Axis(values=_round_values(domain), format="~s"),
        )

    def y(name: str) -> Any:
        return alt.Y(
            f"{name}:Q",
            title="force RMSE (meV/Å)",
            scale=alt.Scale(type="log", domain=list(reach), nice=False),
            axis=alt.Axis(values=_round_values(reach), format="~g"),
        )

    def interval(name: str, labels: str = "labels") -> list[Any]:
        return [f"{labels}:Q", *(alt.Tooltip(f"{key}:Q", format=".3~g") for key in ("low", name, "high"))]

    layers = []
    if fan:
        base = alt.Chart(alt.Data(values=list(fan))).encode(x=x())
        layers.append(of(base.mark_area(opacity=0.75, clip=True).encode(y=y("low"), y2="high:Q"), FORECAST))
        line = base.mark_line(color=PREDICTION, strokeWidth=2, strokeDash=[6, 3], clip=True)
        layers.append(line.encode(y=y("middle"), tooltip=interval("middle")))
    if ghosts:
        base = alt.Chart(alt.Data(values=list(ghosts))).encode(x=x())
        layers.append(
            of(base.mark_rule(strokeWidth=9, opacity=0.35, clip=True).encode(y=y("low"), y2="high:Q"), EARLIER)
        )
        tick = base.mark_tick(orient="horizontal", thickness=2, size=14, clip=True)
        layers.append(of(tick.encode(y=y("middle"), tooltip=["made:Q", *interval("middle")]), EARLIER))
    if target:
        rule = alt.Chart(alt.Data(values=[{"aim": target}])).mark_rule(strokeDash=[4, 3], strokeWidth=2)
        layers.append(of(rule.encode(y=y("aim")), TARGET))
    base = alt.Chart(alt.Data(values=list(points))).encode(x=x())
    layers.append(of(base.mark_rule(strokeWidth=1.5, clip=True).encode(y=y("low"), y2="high:Q"), MEASURED))
    dots = base.mark_point(filled=True, size=70, opacity=1)
    layers.append(of(dots.encode(y=y("error"), tooltip=["iteration:Q", *interval("error")]), MEASURED))
    return finish(alt.layer(*layers), 340)


def _round_values(domain: Sequence[float]) -> list[float]:
    """Return the numbers 1, 2, 5 times a power of ten within a range: few enough to be read on a phone."""
    import math

    low, high = domain
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in _TICKS]
    return [value for value in found if low <= value <= high]
