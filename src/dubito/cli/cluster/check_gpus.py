"""Rules that need a GPU and get none, and the reverse."""

from __future__ import annotations

from dubito.cli.cluster.findings import Finding, fault, listed, ok, warning
from dubito.cli.cluster.plan import LABEL_RULE, Plan
from dubito.core.slurm.cluster import Cluster


def check_gpus(plan: Plan, cluster: Cluster | None) -> list[Finding]:
    """Compare where the configuration wants rules to run with what the profile asks for."""
    asked = {request.rule: request.gpus for request in plan.firsts()}
    found = []
    without = [rule for rule, device in plan.devices.items() if device == "cuda" and asked.get(rule) == 0]
    for key, rules in (
        ("resources.device: cuda", [rule for rule in without if not _labels(rule)]),
        ("labelling.labeller.device: gpu", [rule for rule in without if _labels(rule)]),
    ):
        if rules:
            found.append(
                fault(
                    f"{listed(rules)}: the configuration says {key}, but {plan.file} gives no GPU (gpu: 0). Give "
                    f"each a line like `{rules[0]}: {{slurm_partition: {_gpu_partition(cluster)}, gpu: 1}}` under "
                    "set-resources, or set the device to auto.",
                    rules,
                )
            )
    idle = [rule for rule, count in asked.items() if count and plan.devices.get(rule, "cpu") == "cpu"]
    if idle:
        found.append(
            warning(
                f"{listed(idle)}: a GPU is asked for that would stand idle, since the configuration keeps "
                f"{'it' if len(idle) == 1 else 'them'} on the CPU. Remove `gpu` from {plan.file}, or set "
                "resources.device (labelling.labeller.device for labels) to auto."
            )
        )
    used = [rule for rule, count in asked.items() if count and rule not in idle]
    if used:
        found.append(ok(f"a GPU is asked for by {listed(used, 12)}"))
    elif not without:
        found.append(ok("no rule asks for a GPU"))
    return found


def _labels(rule: str) -> bool:
    return rule in (LABEL_RULE, "prepare_reference")


def _gpu_partition(cluster: Cluster | None) -> str:
    """Return a partition with GPUs, to be named in a remedy."""
    if cluster is None:
        return "gpu"
    with_gpus = sorted({name for node in cluster.nodes.values() if node.gpus for name in node.partitions})
    return with_gpus[0] if with_gpus else "gpu"
