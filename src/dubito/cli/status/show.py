"""Put the screen on a terminal, into a pipe, or again and again."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dubito.cli.status.queue import Asking, Queue
from dubito.cli.status.screen import HEIGHT, WIDTH, Line, screen
from dubito.cli.status.standing import Standing, Watcher, as_json

# Slurm is asked no more often, s: many watch, and each question goes to its one controller.
ASK_EVERY_S = 20.0


def show(watcher: Watcher, *, json_only: bool = False) -> None:
    """Print the standing once."""
    standing = watcher.look(watcher.ask().answer())
    if json_only:
        print(json.dumps(as_json(standing), indent=1, sort_keys=True, ensure_ascii=False))
        return
    console = Console(highlight=False)
    width = console.width if console.is_terminal else WIDTH
    _print(console, screen(standing, min(width, 120), HEIGHT))


def watch(watcher: Watcher, every_s: float, *, json_only: bool = False) -> None:
    """Print the standing every ``every_s`` seconds until Ctrl-C; on a terminal always in the same place.

    With ``json_only`` one line of JSON each.
    """
    console = Console(highlight=False)
    asking = _Asking(watcher)
    try:
        if json_only or not console.is_terminal:
            while True:
                standing = watcher.look(asking.queue())
                if json_only:
                    print(json.dumps(as_json(standing), sort_keys=True, ensure_ascii=False), flush=True)
                else:
                    _print(console, [*screen(standing), Line("")])
                    sys.stdout.flush()
                time.sleep(every_s)
        _live(console, watcher, asking, every_s)
    except KeyboardInterrupt:
        return


def _live(console: Console, watcher: Watcher, asking: _Asking, every_s: float) -> None:
    shown: list[Line] = []
    try:
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                standing = watcher.look(asking.queue())
                shown = screen(standing, min(console.width, 120), console.height - 1)
                live.update(_text([*shown, _foot(standing, every_s)]), refresh=True)
                time.sleep(every_s)
    finally:
        # The alternative screen is gone with its content; what was last seen stays.
        _print(console, shown)


def _foot(standing: Standing, every_s: float) -> Line:
    return Line(f"{time.strftime('%H:%M:%S', time.localtime(standing.time))}, every {every_s:g} s; Ctrl-C ends", "dim")


class _Asking:
    """Asks Slurm now and then; the first answer is waited for, a later one is used once it is there."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._asking: Asking = watcher.ask()
        self._known: Queue = self._asking.answer()

    def queue(self) -> Queue:
        """Return the latest answer."""
        if self._asking.is_answered:
            self._known = self._asking.answer()
            if time.monotonic() - self._asking.asked > ASK_EVERY_S:
                self._asking = self._watcher.ask()
        return self._known


def _print(console: Console, lines: Sequence[Line]) -> None:
    if console.is_terminal:
        console.print(_text(lines), soft_wrap=True)
    else:
        print("\n".join(line.text for line in lines))


def _text(lines: Sequence[Line]) -> Text:
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    parts = [Text(line.text, style="" if plain else line.style) for line in lines]
    return Text("\n").join(parts)
