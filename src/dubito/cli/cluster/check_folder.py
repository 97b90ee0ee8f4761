"""The campaign's folder: seen by all nodes, with locks, room and a label cache that can be written."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from dubito.cli.cluster.findings import Finding, fault, ok, warning
from dubito.core.errors import StorageError
from dubito.core.files import write_text
from dubito.core.slurm.cluster import Cluster

CACHE = Path("results", "label_cache")
# Types of file systems that several machines mount (the ``fuse.`` in front of some is dropped).
SHARED = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph", "cephfs", "glusterfs", "afs", "panfs", "pvfs2",
     "orangefs", "wekafs", "cifs", "smb3", "ocfs2", "gfs2", "9p", "virtiofs", "sshfs", "quobyte", "juicefs", "moosefs",
     "mfs", "vast", "daos", "dfs"}
)  # fmt: skip
_LITTLE_GB = 5.0
_TOO_LITTLE_GB = 0.5
_FEW_FILES = 10_000
# A second process must not get a lock that this one holds; two handles of one process would prove less.
_TRY_LOCK = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def check_folder(folder: Path, cluster: Cluster | None) -> list[Finding]:
    """Look at the file system of the campaign's folder."""
    return [_shared(folder, cluster), _room(folder), _cache(folder), _locks(folder)]


def mount_of(folder: Path, table: str) -> tuple[str, str]:
    """Return mount point and type of the file system of ``folder``, from the text of ``/proc/mounts``."""
    best = ("/", "unknown")
    path = folder.resolve()
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, fields[2])
    return best


def is_shared(kind: str) -> bool:
    """Say whether several machines mount such a file system."""
    return kind.removeprefix("fuse.") in SHARED


def _shared(folder: Path, cluster: Cluster | None) -> Finding:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return warning("this system does not list its mounts; --submit looks whether the nodes see the folder")
    point, kind = mount_of(folder, mounts.read_text(errors="replace"))
    if is_shared(kind):
        return ok(f"the folder is on a shared file system ({kind}, {point})")
    names = {node.address.split(".")[0] for node in cluster.nodes.values()} if cluster else set()
    if names and names <= {socket.gethostname().split(".")[0], "localhost", "127"}:
        return ok(f"the folder is on a local disk ({kind}, {point}), and all nodes are this machine")
    return warning(
        f"the folder is on a local disk of this machine ({kind}, {point}), which the nodes may not see. Move the "
        "campaign to your shared home or scratch folder; `dubito check --profile ... --submit` looks from the nodes."
    )


def _room(folder: Path) -> Finding:
    free_gb = shutil.disk_usage(folder).free / 1e9
    place = os.statvfs(folder)
    text = f"{free_gb:.1f} GB free"
    remedy = "Free some, or move the campaign: a full disk stops it, though finished work is kept."
    # Some file systems count no files, and say 0 of 0.
    if place.f_files and place.f_favail < _FEW_FILES:
        return warning(f"room for {place.f_favail} more files only (each label is one). {remedy}")
    if free_gb < _TOO_LITTLE_GB:
        return fault(f"only {text} on the disk of the campaign. {remedy}")
    return warning(f"{text} on the disk of the campaign. {remedy}") if free_gb < _LITTLE_GB else ok(text)


def _cache(folder: Path) -> Finding:
    path = folder / CACHE / ".dubito-check"
    try:
        write_text(path, "written by dubito check\n")
        path.unlink()
    except (StorageError, OSError) as error:
        return fault(f"the label cache can't be written: {error}")
    return ok(f"the label cache {CACHE} can be written")


def _locks(folder: Path) -> Finding:
    import fcntl

    path = folder / "results" / ".dubito-check.lock"
    advice = "then never start a campaign again before the jobs of a killed driver have ended"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other = subprocess.run(
                [sys.executable, "-c", _TRY_LOCK, str(path)], capture_output=True, timeout=60, check=False
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return warning(f"the file system has no locks ({error}); {advice}")
    finally:
        path.unlink(missing_ok=True)
    if other.returncode == 0:
        return warning(f"locks on the file system keep nobody out (two processes held the same one); {advice}")
    return ok("file locks work")
