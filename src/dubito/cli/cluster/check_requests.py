"""Whether what is asked for exists: partitions, limits, and a node that is large enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from dubito.cli.cluster.findings import Finding, fault, listed, ok, warning
from dubito.cli.cluster.plan import Plan, Request
from dubito.core.errors import nearest
from dubito.core.slurm.cluster import Cluster, Node, Partition
from dubito.core.slurm.features import names_in, satisfies
from dubito.core.slurm.limits import Kind, Limit, Site


def check_partitions(plan: Plan, cluster: Cluster) -> list[Finding]:
    """Look for each partition that is asked for, and whether it takes jobs."""
    found = []
    for name, rules in _rules_by_partition(plan).items():
        if name is None:
            found.append(_default(plan, cluster, rules))
            continue
        partition = cluster.partitions.get(name)
        if partition is None:
            guess = nearest(name, cluster.partitions)
            hint = f" Did you mean '{guess}'?" if guess else ""
            found.append(
                fault(
                    f"there is no partition '{name}' ({listed(rules)}).{hint} This cluster has: "
                    f"{listed(sorted(cluster.partitions), 20)}. Set {plan.place_of('partition', 'gpu_partition')}.",
                    rules,
                )
            )
        else:
            found.append(_state(partition, cluster, rules))
    return found


@dataclass(frozen=True)
class Misfit:
    """What of a request no node or limit can meet: ``asked`` of it, ``limit`` of the partition, and what helps.

    ``waits`` says whether Slurm takes such a job and never starts it; else sbatch refuses it.
    """

    what: str
    asked: str
    limit: str
    remedy: str
    waits: bool = False


def check_sizes(plan: Plan, site: Site) -> list[Finding]:
    """Compare every attempt of every rule with the nodes and the limits of its partition."""
    first: dict[Misfit, list[Request]] = {}
    later: dict[Misfit, list[Request]] = {}
    told: set[tuple[str, str]] = set()
    n_fit = 0
    for request in plan.requests:
        partitions = site.cluster.named(request.partitions)
        problem = misfit(request, partitions, site) if partitions else None
        n_fit += problem is None and bool(partitions) and request.attempt == 1
        if problem is None or (request.rule, problem.what) in told:
            continue
        told.add((request.rule, problem.what))
        group = replace(problem, asked="")
        (first if request.attempt == 1 else later).setdefault(group, []).append(request)
    found = [_too_large(plan, problem, requests) for problem, requests in first.items()]
    found += [_too_large_later(plan, problem, requests) for problem, requests in later.items()]
    if n_fit:
        found.append(ok(f"memory, CPUs, GPUs and time of {n_fit} rules fit nodes and limits"))
    return found


def _too_large(plan: Plan, problem: Misfit, requests: list[Request]) -> Finding:
    who = listed([f"{r.rule} ({_asked(r, problem.what)})" for r in requests], 12)
    rule = requests[0].rule
    return fault(
        f"{who}: {problem.limit}. {problem.remedy}, in {plan.file} (e.g. set-resources, {rule}).",
        [r.rule for r in requests],
    )


def _too_large_later(plan: Plan, problem: Misfit, requests: list[Request]) -> Finding:
    fate = "Such a retry would wait for ever." if problem.waits else "sbatch refuses such a retry."
    who = listed([f"{r.rule} (attempt {r.attempt}: {_asked(r, problem.what)})" for r in requests], 12)
    return warning(f"{who}: {problem.limit}. {fate} {problem.remedy}, in {plan.file}, if first attempts run out.")


def _asked(request: Request, what: str) -> str:
    """Return what a request asks for, of one kind."""
    model = f" {request.gpu_model}" if request.gpu_model else ""
    return {
        "time": f"{request.runtime_min} min",
        "memory": f"{request.mem_mb} MB",
        "cpus": f"{request.cpus} CPUs",
        "gpus": f"{request.gpus}{model} GPU{'s' if request.gpus > 1 else ''}",
        "constraint": f"constraint '{request.constraint}'",
    }[what]


def misfit(request: Request, partitions: list[Partition], site: Site) -> Misfit | None:
    """Return what of a request no node or limit can meet; None when it fits one of the partitions."""
    problems = [_misfit(request, partition, site) for partition in partitions]
    return None if any(problem is None for problem in problems) else problems[0]


def _misfit(request: Request, partition: Partition, site: Site) -> Misfit | None:
    waits = not site.cluster.refuses_beyond_limits
    limit = partition.max_minutes
    if limit is not None and request.runtime_min is not None and request.runtime_min > limit:
        return Misfit(
            "time",
            _asked(request, "time"),
            f"partition {partition.name} ends jobs after {limit:.0f} min (MaxTime)",
            f"Set runtime to {limit:.0f} at most (work that is cut off goes on in the next attempt), or name a "
            "partition for longer jobs",
            waits,
        )
    nodes = site.cluster.nodes_of(partition.name)
    for what, keeps, say in _demands(request, partition, site.cluster):
        left = [node for node in nodes if keeps(node)]
        if not left:
            # Too much for the partition, though a node has it, is taken; what no node has is refused.
            by_partition = what == "memory" and any(node.mem_mb >= (request.mem_mb or 0) for node in nodes)
            return Misfit(what, _asked(request, what), *say(nodes), waits=waits and by_partition)
        nodes = left
    return _beyond_account(request, partition, site)


_ACCOUNTED: dict[str, tuple[Kind, str]] = {
    "time": ("minutes", "min"),
    "memory": ("mem_mb", "MB"),
    "cpus": ("cpus", "CPUs"),
    "gpus": ("gpus", "GPUs"),
}


def _beyond_account(request: Request, partition: Partition, site: Site) -> Misfit | None:
    """Return what of a request its quality of service or account does not allow one job."""
    asked = {"time": request.runtime_min, "memory": request.mem_mb, "cpus": request.cpus, "gpus": request.gpus}
    for what, (kind, unit) in _ACCOUNTED.items():
        limit: Limit | None = site.by_account(partition, kind, request.job)
        if limit is not None and (asked[what] or 0) > limit.amount:
            return Misfit(
                what,
                _asked(request, what),
                f"{limit.by} allows a job {limit.amount} {unit}",
                "Ask for less, or set another qos or account",
                waits=True,
            )
    return None


Demand = tuple[str, Callable[[Node], bool], Callable[[list[Node]], tuple[str, str]]]


def _demands(request: Request, partition: Partition, cluster: Cluster) -> Iterator[Demand]:
    """Yield what a node must have, narrowest first, and what to say (limit, remedy) when no node has it."""
    where = f"partition {partition.name}"
    constraint, cpus, mem = request.constraint, request.cpus, request.mem_mb
    if constraint:
        yield (
            "constraint",
            lambda n: satisfies(constraint, n.features),
            lambda nodes: _features(constraint, nodes, where),
        )
    if request.gpus:
        yield (
            "gpus",
            lambda n: n.gpu_count(request.gpu_model) >= request.gpus,
            lambda nodes: _gpus(nodes, where, cluster),
        )

    def cpus_of(node: Node) -> int:
        return min(node.cpus, partition.max_cpus or node.cpus)

    def mem_of(node: Node) -> int:
        return min(node.mem_mb, partition.max_mem_mb or node.mem_mb)

    yield (
        "cpus",
        lambda n: cpus_of(n) >= cpus,
        lambda nodes: (
            f"the largest suitable node of {where} gives {max(map(cpus_of, nodes), default=0)} CPUs",
            "Lower set-threads, or name another partition",
        ),
    )
    if mem:
        yield (
            "memory",
            lambda n: mem_of(n) >= mem,
            lambda nodes: (
                f"the largest suitable node of {where} gives {max(map(mem_of, nodes), default=0)} MB",
                "Lower mem_mb, or name a partition with larger nodes",
            ),
        )


def _features(constraint: str, nodes: list[Node], where: str) -> tuple[str, str]:
    """Return what to say when no node has the features asked for."""
    features = sorted({name for node in nodes for name in node.features})
    unknown = [name for name in names_in(constraint) if name not in features]
    guess = nearest(unknown[0], features) if unknown else None
    hint = f"Did you mean '{guess}'? " if guess else ""
    return f"no node of {where} has that; features there: {listed(features, 12) or 'none'}", f"{hint}Set constraint"


def _gpus(nodes: list[Node], where: str, cluster: Cluster) -> tuple[str, str]:
    """Return what to say when no node has the GPUs asked for."""
    here = sorted({model or "(no model named)" for node in nodes for model in node.gpus})
    if here:
        most = max(node.gpu_count() for node in nodes)
        return f"nodes of {where} have at most {most} GPUs, models: {listed(here)}", "Set gpu and gpu_model"
    others = sorted({p for node in cluster.nodes.values() if node.gpus for p in node.partitions})
    remedy = f"Set slurm_partition to {' or '.join(others)}" if others else "Set gpu: 0, as this cluster has none"
    return f"no node of {where} has a GPU", remedy


def _rules_by_partition(plan: Plan) -> dict[str | None, list[str]]:
    found: dict[str | None, list[str]] = {}
    for request in plan.firsts():
        names: list[str | None] = [*request.partitions] or [None]
        for name in names:
            found.setdefault(name, []).append(request.rule)
    return found


def _default(plan: Plan, cluster: Cluster, rules: list[str]) -> Finding:
    name = cluster.default_partition
    if name is None:
        return fault(
            f"no partition is set for {listed(rules)}, and this cluster has no default one. Set "
            f"{plan.place_of('partition')} to one of: {listed(sorted(cluster.partitions), 20)}.",
            rules,
        )
    return _state(cluster.partitions[name], cluster, rules, " (the cluster's default)")


def _state(partition: Partition, cluster: Cluster, rules: list[str], note: str = "") -> Finding:
    nodes = cluster.nodes_of(partition.name)
    alive = [node for node in nodes if node.is_alive]
    name = f"partition {partition.name}{note}"
    if partition.state != "UP":
        return fault(
            f"{name} is {partition.state}, not UP ({listed(rules)}): jobs would wait for ever. Name another one, or "
            f"ask when it is back (`sinfo -p {partition.name}`).",
            rules,
        )
    if not nodes:
        return fault(f"{name} has no nodes ({listed(rules)}). Name another one (`sinfo -s` lists them).", rules)
    if not alive:
        states = listed(sorted({node.state for node in nodes}))
        return fault(
            f"all {len(nodes)} nodes of {name} are out of service ({states}; {listed(rules)}). Wait, or name another "
            f"partition; `sinfo -R -p {partition.name}` gives the reasons.",
            rules,
        )
    return ok(f"{name} is up, {len(alive)} of {len(nodes)} nodes in service: {listed(rules, 12)}")
