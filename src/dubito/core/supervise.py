"""Work in a forked child, so that a library that crashes takes the child along and not the job.

The child begins as a copy of its parent: nothing is imported again and nothing has to be turned into bytes. Two
rules follow: fork before anything touches a GPU, and with no other thread running. What the child has to say goes
through a pipe, one line of JSON each; a crash loses none that was sent.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from dubito.core import errors, interrupt
from dubito.core.errors import DubitoError
from dubito.core.interrupt import Interrupted

Say = Callable[[Any], None]

# How often the parent looks whether it was asked to stop.
_POLL_S: Final = 0.2
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes
    ----------
    value : what its work returned (JSON); None when it died
    died_of : name of the signal, or ``exit code n``, that ended it without a word; None when it returned
    """

    value: Any = None
    died_of: str | None = None


def in_child(work: Callable[[Say], Any], heard: Callable[[Any], None]) -> Ended:
    """Run ``work(say)`` in a child and wait; ``heard`` is called here with everything it says.

    SIGTERM and SIGUSR1 (while :func:`dubito.core.interrupt.listening`) are passed on to the child, which dies with
    its parent where the system can arrange that (Linux).

    Raises
    ------
    DubitoError
        What the work raised, of the same class where that is one of :mod:`dubito.core.errors`, or Interrupted.
    RuntimeError
        When the work raised anything else; with its traceback.
    """
    parent, (reader, writer) = os.getpid(), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(work, writer, parent)
    os.close(writer)
    try:
        last, status = _listen(child, reader, heard)
    finally:
        os.close(reader)
    if last is None:
        return Ended(died_of=_words(status))
    if "error" in last:
        raise _fault(last)
    return Ended(value=last["value"])


def _run(work: Callable[[Say], Any], writer: int, parent: int) -> None:
    """Do the work in the child and leave without coming back into the parent's code."""
    code = 1
    try:
        _die_with(parent)

        def say(message: Any) -> None:
            _send(writer, {"said": message})

        try:
            answer: dict[str, Any] = {"value": work(say)}
        except Interrupted as error:
            answer = {"error": "Interrupted", "message": str(error), "signal": error.signal}
        except DubitoError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        except BaseException:
            answer = {"error": "", "message": traceback.format_exc()}
        _send(writer, answer)
        code = 0
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies; other systems can't."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)


def _send(writer: int, message: dict[str, Any]) -> None:
    line = (json.dumps(message, default=str) + "\n").encode()
    while line:
        line = line[os.write(writer, line) :]


def _listen(child: int, reader: int, heard: Callable[[Any], None]) -> tuple[dict[str, Any] | None, int]:
    """Pass on what the child says until it has ended; return its last word, if it had one, and its status."""
    os.set_blocking(reader, False)
    rest, last, passed_on, status = b"", None, False, None
    try:
        while True:
            if status is None:
                select.select([reader], [], [], _POLL_S)
                # Before reading, so that what a dead child had said is read in this round.
                gone, code = os.waitpid(child, os.WNOHANG)
                status = code if gone else None
            rest += _available(reader)
            *lines, rest = rest.split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "said" in message:
                    heard(message["said"])
                else:
                    last = message
            if status is not None:
                return last, status
            if interrupt.requested() and not passed_on:
                os.kill(child, signal.SIGTERM)
                passed_on = True
    except BaseException:
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise


def _available(reader: int) -> bytes:
    found = b""
    while True:
        try:
            piece = os.read(reader, 65536)
        except BlockingIOError:
            return found
        if not piece:
            return found
        found += piece


def _words(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def _fault(last: dict[str, Any]) -> Exception:
    """Return the child's error as one of this process."""
    if last["error"] == "Interrupted":
        error = Interrupted(last["signal"])
        error.args = (last["message"],)
        return error
    if not last["error"]:
        return RuntimeError(f"in the child process:\n{last['message']}")
    kind = getattr(errors, last["error"], DubitoError)
    return kind(last["message"]) if issubclass(kind, DubitoError) else DubitoError(last["message"])
