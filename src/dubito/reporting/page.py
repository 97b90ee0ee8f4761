"""Put the report together: one HTML file that opens offline."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dubito.reporting import (
    certificate,
    charts,
    choosing,
    doubt,
    exploring,
    learning,
    methods,
    parity,
    planning,
    process,
    profiles,
)
from dubito.reporting.blocks import Figure, Section
from dubito.reporting.bundle import vega_bundle
from dubito.reporting.collect import Campaign
from dubito.reporting.verdict import verdict


def sections(campaign: Campaign) -> list[Section]:
    """Return the sections of the page in order."""
    return [
        certificate.certificate(campaign),
        planning.planning(campaign),
        learning.learning_curve(campaign),
        profiles.energy_profiles(campaign),
        parity.parity(campaign),
        doubt.doubt(campaign),
        methods.methods(campaign),
        exploring.exploring(campaign),
        choosing.choosing(campaign),
        process.selected(campaign),
        process.failures(campaign),
        process.cost(campaign),
        process.settings(campaign),
        process.origins(campaign),
    ]


def render(campaign: Campaign) -> str:
    """Return the page. Every text is escaped by the template engine; only dubito's own files are not."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dubito.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bound"] = bound
    parts = sections(campaign)
    return environment.get_template("report.html.jinja").render(
        title=campaign.title,
        name=campaign.config.campaign.name,
        verdict=verdict(campaign),
        running=not campaign.last.decision.get("stop", False),
        iteration=campaign.last.index,
        latest_event=campaign.latest_event,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=campaign.versions["dubito"],
        sections=parts,
        specs=plain({"config": charts.CONFIG, "charts": specs(parts)}),
        script=vega_bundle(),
    )


def specs(parts: Sequence[Section]) -> dict[str, Mapping[str, Any]]:
    """Return the specification of every chart by the id of its element."""
    return {
        f"{block.id}-{number}": {**chart.spec, "description": chart.description}
        for section in parts
        for block in section.blocks
        if isinstance(block, Figure)
        for number, chart in enumerate(block.charts)
    }


def bound(text: str) -> str:
    """Keep numbers with their units and units in one piece where lines break."""
    text = re.sub(r"(?<=[\d–]) (?=(?:%|meV|s|min|h|K|Å)\b|%)|(?<=±) ", "\u00a0", text)
    text = text.replace("n = ", "n\u00a0=\u00a0")
    return re.sub(r"(?<=meV/)(?=\w)", "\u2060", text)


def plain(value: Any) -> Any:
    """Replace numbers that JSON does not know (NaN, infinity) by null, which Vega leaves out."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
