"""The polite kill: SIGTERM and SIGUSR1 as a request that long work looks for where it can stop without loss.

Slurm sends SIGTERM at the time limit and SIGKILL some seconds later (``KillWait``, 30 by default); ``sbatch
--signal`` sends SIGUSR1 earlier. The handlers only set a flag: a signal that arrives while state is being written
changes nothing about the writing, and neither does a second one. SIGINT is left alone: a person at the terminal
wants the end at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dubito.core.errors import DubitoError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_received: signal.Signals | None = None


class Interrupted(DubitoError):
    """The work was asked to stop and did so; its state is kept. Nobody's fault: the same start goes on."""

    exit_code = os.EX_TEMPFAIL

    def __init__(self, name: str, what: str = "") -> None:
        kept = f" {what}" if what else ""
        super().__init__(f"{name} asked this job to stop.{kept} Its state is kept: started again, the job goes on.")
        self.signal = name


@contextmanager
def listening() -> Iterator[None]:
    """Take SIGTERM and SIGUSR1 as requests inside the block; whoever enters it promises to :func:`check`.

    Outside the main thread, where Python sets no handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    forget()
    before = {number: signal.signal(number, _remember) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        forget()


def requested() -> str | None:
    """Return the name of the signal that asked to stop, None while none has."""
    return None if _received is None else _received.name


def check(what: str = "") -> None:
    """Stop here if that was asked for; call it where nothing is lost, or catch what it raises and save first.

    Parameters
    ----------
    what : a sentence on where the work stands, for the message

    Raises
    ------
    Interrupted
        When a signal has arrived.
    """
    if _received is not None:
        raise Interrupted(_received.name, what)


def forget() -> None:
    """Forget a request: the work it was meant for is over."""
    global _received  # noqa: PLW0603 - a signal handler has nowhere else to put it
    _received = None


def _remember(number: int, frame: FrameType | None) -> None:
    global _received  # noqa: PLW0603
    del frame
    if _received is None:
        _received = signal.Signals(number)
