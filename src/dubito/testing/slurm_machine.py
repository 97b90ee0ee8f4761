"""What a throw-away Slurm needs of the machine: programs, ports, and a sure way to find its processes again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dubito.core.errors import EnvironmentFault

PACKAGES = "slurm-wlm slurm-wlm-basic-plugins munge"
ACCOUNTING_PACKAGES = "slurmdbd mariadb-server"
_DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "nsenter", "unshare")
_ACCOUNTING_DAEMONS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr", "sacct")
# Debian keeps daemons where a user's PATH does not look.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_CGROUPS = Path("/sys/fs/cgroup")
# A Unix socket's path has at most 107 characters, and Slurm appends names to ROOT.
LONGEST_ROOT = 60
# Below the ports that the kernel gives to clients.
_PORTS = range(20000, 32000)


def why_not(*, accounting: bool = False) -> str | None:
    """Return why no cluster can be started here, None when it can."""
    if sys.platform != "linux":
        return "a Slurm cluster needs Linux"
    if os.geteuid() != 0:
        return "a throw-away Slurm cluster is started as root (mount namespaces, device files)"
    names = _DAEMONS + (_ACCOUNTING_DAEMONS if accounting else ())
    missing = [name for name in names if shutil.which(name, path=PATH) is None]
    if missing:
        packages = PACKAGES + (f" {ACCOUNTING_PACKAGES}" if accounting else "")
        return f"not installed: {', '.join(missing)}. On Debian or Ubuntu: apt-get install {packages}"
    if not Path("/etc/slurm").is_dir():
        return "there is no folder /etc/slurm to mount the cluster's over (mkdir /etc/slurm)"
    tried = subprocess.run(["unshare", "--mount", "--uts", "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"no mount namespaces here: {tried.stderr.strip()}"


def has_cgroups() -> bool:
    """Say whether Slurm can limit memory by cgroups (version 1) here; else it looks at the processes itself."""
    probe = _CGROUPS / "freezer" / f"dubito-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return (_CGROUPS / "memory" / "memory.limit_in_bytes").exists()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, a different set for each call."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, 400):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise EnvironmentFault("no free ports between 20000 and 32000 on this machine. End what listens there.")


def namespace(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/mnt").stat().st_ino
    except OSError:
        return None


def is_inside(pid: int, root: Path) -> bool:
    """Say whether a process sees ``root/etc`` as its ``/etc/slurm``."""
    try:
        return Path(f"/proc/{pid}/root/etc/slurm").samefile(root / "etc")
    except OSError:
        return False


def processes_of(root: Path) -> list[int]:
    """Return all that runs in the cluster of a folder: its daemons, its jobs, and what was started inside it."""
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and is_inside(int(p.name), root)]


def kill(pid: int, sign: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sign)


def tail(path: Path, n: int = 5) -> str:
    lines = path.read_text(errors="replace").splitlines()[-n:]
    return f"--- {path.name}\n" + "\n".join(lines)


def cgroups_of(nodes: Sequence[str]) -> Iterator[Path]:
    """Yield the cgroups that Slurm made for nodes, innermost first."""
    for node in nodes:
        for top in _CGROUPS.glob(f"*/slurm_{node}"):
            yield from (Path(folder) for folder, _, _ in os.walk(top, topdown=False))


def thaw(nodes: Sequence[str]) -> None:
    """Let processes go that Slurm had frozen to kill them: they can't die before."""
    for group in cgroups_of(nodes):
        with contextlib.suppress(OSError):
            (group / "freezer.state").write_text("THAWED")


def remove_cgroups(nodes: Sequence[str]) -> None:
    """Remove the cgroups of nodes whose processes have ended."""
    for _ in range(20):
        left = list(cgroups_of(nodes))
        for group in left:
            with contextlib.suppress(OSError):
                group.rmdir()
        if not left:
            return
        time.sleep(0.05)
