"""A throw-away Slurm on one machine: real daemons, several nodes, a GPU that is none.

It lives in a mount namespace of its own, where ``/etc/slurm`` is the cluster's folder, with ports, names and a
munge daemon of its own: several run side by side, and a Slurm of the machine is never touched. Jobs cannot be
given another configuration by ``SLURM_CONF``, because the Snakemake plugin removes all ``SLURM_*`` variables.

    python -m dubito.testing.slurm_cluster up /tmp/cluster
    python -m dubito.testing.slurm_cluster run /tmp/cluster -- sinfo
    python -m dubito.testing.slurm_cluster down /tmp/cluster
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dubito.core.errors import EnvironmentFault
from dubito.testing import slurm_files as files
from dubito.testing.slurm_files import Layout
from dubito.testing.slurm_machine import (
    LONGEST_ROOT,
    PATH,
    free_ports,
    has_cgroups,
    is_inside,
    kill,
    namespace,
    processes_of,
    remove_cgroups,
    tail,
    thaw,
    why_not,
)

__all__ = ["SlurmCluster", "why_not"]


class SlurmCluster:
    """A cluster of ``cpu_nodes`` nodes in partition ``cpu`` and ``gpu_nodes`` in partition ``gpu``.

    Use it as a context manager. When the process that made it dies, the cluster goes down by itself.

    Parameters
    ----------
    root
        Folder of the cluster, made if it is missing; a new temporary one by default. At most 60 characters.
    cpus_per_node, memory_mb
        What each node claims to have (MB); a node may claim more cores than the machine has.
    gpus_per_node
        GPUs of a GPU node. Jobs are given ``CUDA_VISIBLE_DEVICES``; the device files lead nowhere.
    accounting
        Whether there is a slurmdbd with a MariaDB, and thus ``sacct``. Jobs then need an account: ``alloc1``,
        which is root's default.
    min_job_age_s
        Seconds for which ``squeue`` still shows an ended job.
    kill_wait_s
        Seconds between SIGTERM and SIGKILL at the time limit.
    node_timeout_s
        Seconds after which a node that does not answer is down.
    owner_pid
        Process with which the cluster dies, this one by default; 0 for none.

    Raises
    ------
    EnvironmentFault
        From :meth:`start`: when this machine can't run it, or a daemon does not come up (with the end of its log).
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        cpu_nodes: int = 2,
        gpu_nodes: int = 1,
        cpus_per_node: int = 8,
        gpus_per_node: int = 2,
        memory_mb: int = 16000,
        accounting: bool = False,
        min_job_age_s: int = 300,
        kill_wait_s: int = 3,
        node_timeout_s: int = 20,
        owner_pid: int | None = None,
    ) -> None:
        self._is_temporary = root is None
        where = Path(root or tempfile.mkdtemp(prefix="dubito-slurm-")).resolve()
        if len(str(where)) > LONGEST_ROOT:
            raise EnvironmentFault(
                f"The folder of the cluster, {where}, is longer than {LONGEST_ROOT} characters: sockets in it could "
                "not be opened. Take a shorter one, for example under /tmp."
            )
        ports = free_ports(cpu_nodes + gpu_nodes + 3)
        # Letters only: a number at the end of a node's name would be folded into ranges.
        tag = "".join(random.SystemRandom().choices("abcdefghijklmnopqrstuvwxyz", k=4))
        self.layout = Layout(
            root=where,
            host=socket.gethostname().split(".")[0],
            tag=tag,
            cpu_nodes=[f"c{i + 1}-{tag}" for i in range(cpu_nodes)],
            gpu_nodes=[f"g{i + 1}-{tag}" for i in range(gpu_nodes)],
            cpus_per_node=cpus_per_node,
            gpus_per_node=gpus_per_node,
            memory_mb=memory_mb,
            controller_port=ports[0],
            database_port=ports[1],
            accounting_port=ports[2],
            node_ports=ports[3:],
            accounting=accounting,
            cgroups=has_cgroups(),
            min_job_age_s=min_job_age_s,
            kill_wait_s=kill_wait_s,
            node_timeout_s=node_timeout_s,
        )
        self._owner = os.getpid() if owner_pid is None else owner_pid

    @classmethod
    def attach(cls, root: Path | str) -> SlurmCluster:
        """Return the cluster that another process started in ``root``."""
        where = Path(root).resolve()
        try:
            values: dict[str, Any] = json.loads((where / "cluster.json").read_text())
        except OSError as error:
            raise EnvironmentFault(
                f"{where} holds no cluster ({error.strerror}). Start one: "
                f"python -m dubito.testing.slurm_cluster up {where}"
            ) from None
        cluster = cls.__new__(cls)
        cluster.layout = Layout(**{**values, "root": where})
        cluster._is_temporary, cluster._owner = False, 0
        return cluster

    @property
    def root(self) -> Path:
        """Return the cluster's folder (``log/`` has the logs of its daemons)."""
        return self.layout.root

    @property
    def nodes(self) -> list[str]:
        """Return the names of all nodes, those with GPUs last."""
        return self.layout.nodes

    def __enter__(self) -> SlurmCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- up and down ---------------------------------------------------------------------------

    def start(self, wait_s: float = 60) -> None:
        """Start all daemons and wait until all nodes are idle; what was started is ended if that fails."""
        if reason := why_not(accounting=self.layout.accounting):
            raise EnvironmentFault(f"No Slurm cluster can be started here: {reason}.")
        try:
            files.write_files(self.layout)
            self._start_holder()
            self._start_munge()
            if self.layout.accounting:
                self._start_accounting()
            self.start_controller()
            for name in self.nodes:
                self._start_node(name)
            self._wait(self._is_idle, "its nodes are not idle", wait_s)
        except BaseException:
            self.stop(keep_logs=True)
            raise

    def stop(self, *, keep_logs: bool = False) -> None:
        """End everything that runs in the cluster, jobs too, and remove its folder if it was made by us.

        What belongs to it is told by the namespace: whatever sees this cluster's folder as its ``/etc/slurm``.
        """
        holder = self._pid("holder")
        # First of all, or it would go on starting its clock.
        if holder is not None and holder != os.getpid() and is_inside(holder, self.root):
            kill(holder)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(holder, 0)
        for _ in range(200):
            mine = [pid for pid in processes_of(self.root) if pid != os.getpid()]
            thaw(self.nodes)
            for pid in mine:
                kill(pid)
            if not mine:
                break
            time.sleep(0.02)
        (self.root / "run" / "holder.pid").unlink(missing_ok=True)
        remove_cgroups(self.nodes)
        if self._is_temporary and not keep_logs:
            shutil.rmtree(self.root, ignore_errors=True)

    def _start_holder(self) -> None:
        (self.root / "run" / "holder.pid").unlink(missing_ok=True)
        with (self.root / "log" / "holder.log").open("w") as log:
            subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", str(self.root / "bin" / "holder.sh"),
                 str(self.root), str(self._owner), sys.executable],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )  # fmt: skip
        self._wait(lambda: self._pid("holder"), "its namespace was not made", 10)

    def _start_munge(self) -> None:
        key = self.root / "run" / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        run, log = self.root / "run", self.root / "log"
        self._daemon(
            ["munged", "--force", f"--key-file={key}", f"--socket={self.layout.munge_socket}",
             f"--pid-file={run}/munged.pid", f"--seed-file={run}/munge.seed", f"--log-file={log}/munged.log"]
        )  # fmt: skip
        self._wait(self.layout.munge_socket.exists, "munged does not listen", 10)

    def _start_accounting(self) -> None:
        prepare, serve, ask, accounts = files.database_commands(self.layout)
        if not (self.root / "mysql" / "mysql").exists():
            self._daemon(prepare)
        with (self.root / "log" / "mariadbd.log").open("a") as log:
            subprocess.Popen(
                self.command(serve), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env=self.env,
            )  # fmt: skip
        self._wait(lambda: self.run(ask, check=False).returncode == 0, "mariadbd does not answer", 60)
        self.start_accounting()
        for command in accounts:
            self.run(command)

    def _is_idle(self) -> bool:
        answer = self.run(["sinfo", "--noheader", "--Node", "--format=%t"], check=False).stdout.split()
        return len(answer) == len(self.nodes) and set(answer) == {"idle"}

    # --- commands ------------------------------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        """Return the environment for commands: this process's without what an outer Slurm job set."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        return {**kept, "PATH": PATH}

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return a command line that runs ``arguments`` inside the cluster, in the folder it is started in.

        The process started is the command itself in the end (all before it is replaced): it can be killed by its
        process id.
        """
        return [str(self.root / "bin" / "inside"), *arguments]

    def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | str | None = None,
        env: dict[str, str] | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the cluster; with ``check``, raise EnvironmentFault with its words if it fails."""
        done = subprocess.run(
            self.command(arguments), cwd=cwd, env=env or self.env, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise EnvironmentFault(
                f"`{' '.join(arguments)}` in the cluster {self.root} ended with {done.returncode}: "
                f"{(done.stderr or done.stdout).strip()[-2000:]}"
            )
        return done

    # --- faults --------------------------------------------------------------------------------

    def node_down(self, name: str) -> None:
        """Switch a node off: slurmd, its job steps and their processes end at once, as in a power failure."""
        slurmd = self._pid(f"slurmd-{name}")
        if slurmd is None:
            return
        space = namespace(slurmd)
        thaw(self.nodes)
        for _ in range(100):
            mine = [pid for pid in processes_of(self.root) if space is not None and namespace(pid) == space]
            for pid in mine:
                kill(pid)
            if not mine:
                break
            time.sleep(0.02)
        (self.root / "run" / f"slurmd-{name}.pid").unlink(missing_ok=True)

    def node_up(self, name: str, wait_s: float = 30) -> None:
        """Switch a node on again and wait until the controller uses it."""
        self._start_node(name)

        def is_used() -> bool:
            state = self.run(["sinfo", "--noheader", "--node", name, "--format=%t"], check=False).stdout.split()
            return bool(state) and set(state) <= {"idle", "mix", "alloc", "comp"}

        self._wait(is_used, f"node {name} does not come up", wait_s)

    def stop_controller(self, *, crash: bool = False) -> None:
        """End slurmctld; jobs go on. With ``crash`` it may not save its state, and forgets the latest jobs."""
        self._end("slurmctld", signal.SIGKILL if crash else signal.SIGTERM)

    def start_controller(self, *, lose_state: bool = False) -> None:
        """Start slurmctld; with ``lose_state`` it knows nothing of the jobs before."""
        if lose_state:
            shutil.rmtree(self.root / "state", ignore_errors=True)
            (self.root / "state").mkdir()
        self._daemon(["slurmctld", "-i"])

    def stop_accounting(self) -> None:
        """End slurmdbd."""
        self._end("slurmdbd", signal.SIGTERM)

    def start_accounting(self) -> None:
        """Start slurmdbd and wait until it answers."""
        self._daemon(["slurmdbd"])
        ask = ["sacctmgr", "--noheader", "list", "cluster"]
        self._wait(lambda: self.run(ask, check=False).returncode == 0, "slurmdbd does not answer", 60)

    # --- pieces --------------------------------------------------------------------------------

    def _start_node(self, name: str) -> None:
        space = ["unshare", "--mount", "--uts", "--propagation", "private"]
        self._daemon([*space, str(self.root / "bin" / "node.sh"), name])

    def _daemon(self, arguments: Sequence[str]) -> None:
        """Run a program that puts itself into the background (or ends); its output may not hold a pipe open."""
        log = self.root / "log" / "start.log"
        with log.open("a") as handle:
            done = subprocess.run(
                self.command(arguments), stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, env=self.env,
                timeout=120, check=False, cwd="/",
            )  # fmt: skip
        if done.returncode != 0:
            raise EnvironmentFault(
                f"{arguments[0]} did not start ({done.returncode}): {log.read_text().strip()[-1500:]}. "
                f"The logs are in {self.root / 'log'}."
            )

    def _end(self, daemon: str, sign: signal.Signals) -> None:
        pid = self._pid(daemon)
        if pid is not None and is_inside(pid, self.root):
            kill(pid, sign)
            self._wait(lambda: not is_inside(pid, self.root), f"{daemon} does not end", 20)
        (self.root / "run" / f"{daemon}.pid").unlink(missing_ok=True)

    def _pid(self, daemon: str) -> int | None:
        try:
            return int((self.root / "run" / f"{daemon}.pid").read_text())
        except (OSError, ValueError):
            return None

    def _wait(self, condition: Callable[[], object], otherwise: str, wait_s: float) -> None:
        end = time.monotonic() + wait_s
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(tail(path) for path in sorted((self.root / "log").glob("*.log")))
                raise EnvironmentFault(
                    f"The cluster in {self.root} is not right after {wait_s:.0f} s: {otherwise}.\n{logs}"
                )
            time.sleep(0.05)


if __name__ == "__main__":
    from dubito.testing.slurm_command import main

    sys.exit(main())
