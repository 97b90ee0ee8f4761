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
import shlex
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from dubito.core.errors import StorageError
from dubito.core.files import write_bytes

_FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
# Tried in this order, until the compiler takes one: not all know all of these.
_VARIANTS = (
    ("-march=native", "-fopenmp", "-mprefer-vector-width=512"),
    ("-march=native", "-fopenmp"),
    ("-mcpu=native", "-fopenmp"),
    ("-march=native",),
    ("-mcpu=native",),
    (),
)
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
    compiler, version = _find_compiler()
    described = [source, *compiler, version, *_FLAGS, *map(str, _VARIANTS), _processor()]
    name = f"network-{hashlib.sha256(chr(0).join(described).encode()).hexdigest()[:32]}.so"
    reason = ""
    # First a folder that has it already: a home may be read-only where jobs run.
    for folder in sorted(cache_folders(), key=lambda folder: not (folder / name).exists()):
        try:
            _require_own(folder)
            if not _intact(folder / name):
                _build(source, compiler, folder / name)
            return ctypes.CDLL(str(folder / name))
        except (OSError, StorageError) as error:
            reason = f"{folder}: {error}"
    raise CompilationError(f"no folder for compiled libraries could be used ({reason}); set DUBITO_CACHE to one")


def compiler_version() -> str:
    """Return the first line the compiler says of itself.

    Raises
    ------
    CompilationError
        When there is none.
    """
    return _find_compiler()[1]


def cache_folders() -> list[Path]:
    """Return where libraries may be kept, best first; the last one is for homes that can't be written."""
    chosen = os.environ.get("DUBITO_CACHE")
    if not chosen:
        try:
            base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            chosen = str(Path(base) / "dubito")
        except RuntimeError:  # a container's user may have no home
            chosen = None
    folders = [Path(chosen)] if chosen else []
    return [*folders, Path(tempfile.gettempdir()) / f"dubito-{os.getuid()}"]


def _require_own(folder: Path) -> None:
    """Make the folder; refuse one where somebody else could put a library for us to run."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & stat.S_IWOTH or not stat.S_ISDIR(status.st_mode):
        raise PermissionError(f"{folder} is not a folder of yours alone")


@cache
def _find_compiler() -> tuple[tuple[str, ...], str]:
    """Return the command of the C compiler and its version."""
    for command in [shlex.split(os.environ.get("CC", "")), ["cc"], ["gcc"], ["clang"]]:
        path = shutil.which(command[0]) if command else None
        if path is None:
            continue
        found = (path, *command[1:])
        try:
            said = _run([*found, "--version"], timeout_s=60)
        except (OSError, subprocess.SubprocessError):
            continue
        if said.returncode == 0:
            return found, (said.stdout.splitlines() or ["unknown"])[0]
    raise CompilationError("no C compiler was found (looked for $CC, cc, gcc and clang)")


def _run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)


@cache
def _processor() -> str:
    """Return what code for this very processor depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")
    return platform.machine() + "".join(sorted({line for line in lines if line.split(":")[0].strip() in wanted}))


def _intact(path: Path) -> bool:
    """Say whether a library is there and ends with the hash of what comes before."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    size = len(_MARK) + 32
    return data[-size:] == _MARK + hashlib.sha256(data[:-size]).digest()


def _build(source: str, compiler: tuple[str, ...], path: Path) -> None:
    with tempfile.TemporaryFile(dir=path.parent):
        pass  # a folder that can't be written is found out before minutes are spent
    with tempfile.TemporaryDirectory(prefix="dubito-") as folder:
        text, made = Path(folder) / "network.c", Path(folder) / "network.so"
        text.write_text(source)
        for variant in _VARIANTS:
            try:
                done = _run([*compiler, *_FLAGS, *variant, str(text), "-o", str(made), "-lm"], _TIMEOUT_S)
            except subprocess.SubprocessError as error:
                raise CompilationError(f"{compiler[0]} did not finish: {error}") from None
            if done.returncode == 0 and made.exists():
                break
        else:
            said = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise CompilationError(f"{compiler[0]} could not compile the network: {said}")
        data = made.read_bytes()
    write_bytes(path, data + _MARK + hashlib.sha256(data).digest())
