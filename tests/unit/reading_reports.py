"""What a reader gets from a page of a report: text, sections, tables, drawn rows."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from synthetic_campaign import Builder

from dubito.reporting import certificate, choosing, page, planning
from dubito.reporting.collect import Campaign, collect

NEW = (certificate.certificate, planning.planning, choosing.choosing)


class Reader(HTMLParser):
    """Collects what a browser would see and load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text, self._open = "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open not in ("script", "style"):
            self.text += data


def specs(html: str) -> Any:
    """Return what the page's script draws."""
    return json.loads(re.search(r'<script type="application/json" id="specs">(.*?)</script>', html, re.S)[1])


def data(spec: Any) -> list[dict[str, Any]]:
    """Return all rows of data in a specification."""
    if isinstance(spec, dict):
        own = spec["values"] if isinstance(spec.get("values"), list) else []
        return [row for row in own if isinstance(row, dict)] + [row for part in spec.values() for row in data(part)]
    return [row for part in spec for row in data(part)] if isinstance(spec, list) else []


def seen(html: str) -> str:
    """Return the text as it is read: spaces that don't break are spaces."""
    return re.sub(r"\s+", " ", Reader(html).text.replace("\u2060", "").replace("\xa0", " ")).strip()


def section(html: str, name: str) -> str:
    """Return the text of one section."""
    return seen(re.search(rf'<section id="{name}".*?</section>', html, re.S)[0])


def rows(html: str, caption: str) -> list[list[str]]:
    """Return the cells of a table, its header first."""
    table = re.search(rf"<caption><span>{re.escape(caption)}</span></caption>(.*?)</table>", html, re.S)[1]
    return [
        [seen(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)]
        for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)
    ]


def read(campaign: Builder) -> tuple[str, str, Campaign]:
    """Return the page, its text, and the campaign as collected; of the sections those on risk, plan and choice.

    The others, and the script that draws, take most of the time and have tests of their own.
    """
    found = collect(campaign.folder, campaign.config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "sections", lambda campaign: [make(campaign) for make in NEW])
        patch.setattr(page, "vega_bundle", lambda: "")
        html = page.render(found)
    return html, seen(html), found


def is_clean(html: str) -> bool:
    """Return whether no text and no drawn number is a Python or IEEE word for nothing."""
    text = Reader(html).text.split("Resolved configuration")[0]
    words = re.search(r"\b(None|nan|NaN|inf|Infinity|True|False)\b", text)
    return words is None and "NaN" not in json.dumps(specs(html))
