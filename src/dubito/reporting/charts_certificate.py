"""The charts of the certificate: what may be accepted, and how often that goes wrong. Shares in percent."""

from __future__ import annotations

from typing import Any

from dubito.reporting.charts import Rows, Spec, finish

HOLDS, HOLDS_NOT = "holds", "does not hold"
CHOSEN, OF_BEFORE = "threshold chosen on these labels", "threshold of the iteration before"
_GREEN, _ORANGE, _BLUE, _RISK = "#009E73", "#D55E00", "#0072B2", "#555555"
HEIGHT = 240


def accepted_shares(rows: Rows, least: float) -> Spec:
    """Share of the pool that can be accepted; rows ``iteration, accepted, state``, and the least that counts."""
    import altair as alt

    title = "accepted share of the pool (%)"
    domain, colours, shapes = [HOLDS, HOLDS_NOT], [_GREEN, _ORANGE], ["circle", "diamond"]
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1)
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("iteration:O", title="iteration", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("accepted:Q", title=title, scale=alt.Scale(domain=[0, 100])),
    )
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        color=alt.Color("state:N", scale=alt.Scale(domain=domain, range=colours), legend=legend),
        shape=alt.Shape("state:N", scale=alt.Scale(domain=domain, range=shapes), legend=legend),
        tooltip=["iteration:O", alt.Tooltip("accepted:Q", format=".3~g"), "state:N"],
    )
    return finish(alt.layer(_rule(least, "accepted"), base.mark_line(color="#8a8a8a"), points), HEIGHT)


def miss_rates(rows: Rows, risk: float) -> Spec:
    """Miss rates with their intervals against the risk; rows ``iteration, value, low, high, threshold``."""
    import altair as alt

    domain = [name for name in (CHOSEN, OF_BEFORE) if any(row["threshold"] == name for row in rows)]
    colour_of, shape_of = {CHOSEN: _BLUE, OF_BEFORE: _ORANGE}, {CHOSEN: "circle", OF_BEFORE: "diamond"}
    legend = alt.Legend(title=None, orient="top", columns=1, symbolOpacity=1, labelLimit=260)
    title = "miss rate (%)"
    color = alt.Color(
        "threshold:N", scale=alt.Scale(domain=domain, range=[colour_of[name] for name in domain]), legend=legend
    )
    shape = alt.Shape(
        "threshold:N", scale=alt.Scale(domain=domain, range=[shape_of[name] for name in domain]), legend=legend
    )
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("iteration:O", title="iteration", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("threshold:N", sort=domain),
        color=color,
    )
    intervals = base.mark_rule(strokeWidth=2).encode(
        y=alt.Y("low:Q", title=title, scale=alt.Scale(domainMin=0)), y2="high:Q"
    )
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        y=alt.Y("value:Q", title=title),
        shape=shape,
        tooltip=[
            "iteration:O",
            "threshold:N",
            *(alt.Tooltip(f"{key}:Q", format=".3~g") for key in ("value", "low", "high")),
        ],
    )
    return finish(alt.layer(_rule(risk, "value"), intervals, points), HEIGHT)


def _rule(percent: float, name: str) -> Any:
    import altair as alt

    line = alt.Chart(alt.Data(values=[{name: percent}])).mark_rule(color=_RISK, strokeDash=[4, 3], strokeWidth=1.5)
    return line.encode(y=f"{name}:Q")
