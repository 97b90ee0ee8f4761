"""What a page is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table of text; the first column heads its rows."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    half: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """A chart with its finding above, its definition below and the numbers behind it.

    ``charts`` are Vega-Lite specifications without data from outside; more than one are drawn as
    small multiples with a title each. Blocks of half width stand side by side where there is room.
    """

    id: str
    title: str
    finding: str
    caption: str
    charts: Sequence[Chart]
    table: Table | None = None
    half: bool = False
    kind: str = "figure"


@dataclass(frozen=True)
class Chart:
    """One Vega-Lite chart and its description for those who can't see it."""

    spec: Mapping[str, Any]
    description: str
    title: str = ""
    small: bool = False
    half: bool = False


@dataclass(frozen=True)
class Text:
    """A paragraph: a finding, or, ``plain``, what qualifies one."""

    text: str
    plain: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    label: str
    text: str
    kind: str = "code"


Block = Table | Figure | Text | Code


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Verdict:
    """The box on top."""

    state: str
    headline: str
    reason: str
    figures: Sequence[tuple[str, str, str]]
    limits: Sequence[str] = field(default_factory=tuple)
    # What a reader must know before anything else, such as that a bound no longer holds.
    warnings: Sequence[str] = field(default_factory=tuple)
