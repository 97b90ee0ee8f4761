"""Seconds, hours and long texts as a person reads them on a narrow screen."""

from __future__ import annotations

import time


def duration(seconds: float) -> str:
    """Return a length of time (s) with at most two units."""
    seconds = max(0.0, seconds)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


def ago(then: float, now: float) -> str:
    """Say how long ago something was; both are seconds since 1970."""
    return f"{duration(now - then)} ago"


def clock(moment: float, now: float) -> str:
    """Return the local time of a moment (seconds since 1970), with the date when it was another day."""
    try:
        then, today = time.localtime(moment), time.localtime(now)
        return time.strftime("%H:%M" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)
    except (OverflowError, ValueError, OSError):
        return "?"


def hours(value: float) -> str:
    """Return hours with as many digits as are worth reading."""
    if value == 0:
        return "0"
    if value < 0.005:
        return "<0.01"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def one_line(text: object) -> str:
    """Return a text without line breaks, and without control characters, which could repaint a terminal."""
    printable = "".join(character if character.isprintable() else " " for character in str(text))
    return " ".join(printable.split())


def clip(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def counted(number: int, noun: str) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
