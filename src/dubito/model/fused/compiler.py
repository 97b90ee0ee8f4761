"""Compile a network's C source once for each machine, and load it.

Libraries are kept in a cache by the hash of source, compiler, flags and processor, so that node types don't
mix. A library is written beside its final name and renamed, with its own hash at its end: a truncated or
changed file is compiled anew, and jobs that compile the same at once don't meet.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from dubito.core.errors import StorageError
from dubito.core.files import write_bytes

_FLAGS = (
    "-std=gnu11",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
)
# Tried in this order: with threads and full vectors, with threads, without.
_VARIANTS = (("-fopenmp", "-mprefer-vector-width=512"), ("-fopenmp",), ())
_MARK = b"dubito:sha256:"
_TIMEOUT_S = 900


class CompilationError(Exception):
    """The library can't be made here; the message says why."""


def load_library(source: str) -> ctypes.CDLL:
    """Return the compiled library, from the cache where it is there.

    Raises
    ------
    CompilationError
        When there is no compiler, it fails, or the library can't be loaded.
    """
    compiler = _find_compiler()
    key = hashlib.sha256("\0".join([source, *compiler, *_FLAGS, *map(str, _VARIANTS), _processor()]).encode())
    for folder in cache_folders():
        path = folder / f"network-{key.hexdigest()[:32]}.so"
        try:
            if not _intact(path):
                _build(source, compiler[0], path)
            return ctypes.CDLL(str(path))
        except (OSError, StorageError) as error:
            reason = f"{folder}: {error}"
    raise CompilationError(f"no folder for compiled libraries could be used ({reason}); set DUBITO_CACHE to one")


def cache_folders() -> list[Path]:
    """Return where libraries may be kept, best first; the last one is for homes that can't be written."""
    chosen = os.environ.get("DUBITO_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dubito"
    folders = [Path(chosen)] if chosen else [home]
    temporary = Path(tempfile.gettempdir()) / f"dubito-{os.getuid()}"
    return [*folders, temporary]


@cache
def _find_compiler() -> tuple[str, str]:
    """Return the path of the C compiler and its version."""
    asked = os.environ.get("CC", "").split()[:1]
    for name in [*asked, "cc", "gcc", "clang"]:
        path = shutil.which(name)
        if path is None:
            continue
        try:
            found = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return path, found.stdout.splitlines()[0] if found.stdout else "unknown"
    raise CompilationError("no C compiler was found (looked for $CC, cc, gcc and clang)")


@cache
def _processor() -> str:
    """Return what ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")
    first = [line for line in lines if line.split(":")[0].strip() in wanted]
    return platform.machine() + "".join(sorted(set(first)))


def _intact(path: Path) -> bool:
    """Say whether a library is there, is ours, and ends with the hash of what comes before."""
    try:
        if path.stat().st_uid != os.getuid():
            return False
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    size = len(_MARK) + 32
    return data[-size:] == _MARK + hashlib.sha256(data[:-size]).digest()


def _build(source: str, compiler: str, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{path.parent} belongs to somebody else")
    with tempfile.TemporaryDirectory(prefix="dubito-") as folder:
        text, made = Path(folder) / "network.c", Path(folder) / "network.so"
        text.write_text(source)
        said = ""
        for variant in _VARIANTS:
            command = [compiler, *_FLAGS, *variant, str(text), "-o", str(made), "-lm"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
            except subprocess.SubprocessError as error:
                raise CompilationError(f"{compiler} did not finish: {error}") from None
            if done.returncode == 0 and made.exists():
                break
            said = (done.stderr.strip().splitlines() or ["no message"])[0]
        else:
            raise CompilationError(f"{compiler} could not compile the network: {said}")
        data = made.read_bytes()
    write_bytes(path, data + _MARK + hashlib.sha256(data).digest())
