"""Write the tables of docs/performance.md, uncertainty.md, labelling.md and README.md from the benchmarks' JSON.

    python benchmarks/tables.py            # print them
    python benchmarks/tables.py --write    # put them into the pages, between their markers

A test compares the pages with the JSON, so that no number there is typed by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import _certificate_tables as certified
import _cluster_tables as cluster
import _doubt_tables as doubt
import _label_tables as labels
import _planner_tables as planner
import _sampler_tables as sampled
import _savings_tables as savings
import _scoring_tables as scoring
import _seeking_tables as seeking
import _selection_tables as selecting

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PAGES = (
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            "performance",
            "uncertainty",
            "labelling",
            "cluster",
            "exploring",
            "certificate",
            "label_savings",
            "adaptive_scoring",
            "selection",
            "planning",
        )
    ),
    ROOT / "README.md",
)

Json = dict[str, Any]


def read(name: str) -> Json:
    """Return a benchmark's result, empty when it has not been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def markdown(head: list[str], rows: list[list[Any]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _spread(value: Json | None) -> str:
    if not value:
        return "–"
    return f"{_short(value['median'])} ({_short(value['p10'])} to {_short(value['p90'])})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _case(key: str) -> str:
    """Say what a row is: ``l2@5``, ``l1@5:silicon`` and the like."""
    degree, _, rest = key.partition("@")
    return f"l_max {degree[1:]}, batch {rest}"


def ratios() -> str:
    """Peer's time over ours."""
    found = read("speed").get("ratios", {})
    names = {
        "train: nequip / dubito": "train: NequIP / one member",
        "train: nequip / four members": "train: one NequIP / four members",
        "train: MACE / dubito": "train: MACE / one member",
        "score: four nequip / four members": "score: four NequIP / four members",
    }
    keys = list(next(iter(found.values()), {}))
    rows = [[_case(key), *[_spread(found[name].get(key)) for name in names]] for key in keys]
    return markdown(["case", *names.values()], rows)


def headline() -> str:
    """Medians for the smallest batch."""
    speed, four_compiled = read("speed"), read("speed_compiled").get("ratios", {})
    names = {
        "one training step of NequIP / of four dubito members": "train: nequip / four members",
        "the same, NequIP compiled": "train: nequip compiled / four members",
        "one training step of NequIP / of one member": "train: nequip / dubito",
        "one training step of MACE / of one member": "train: MACE / dubito",
        "scoring by four NequIP / by four members": "score: four nequip / four members",
    }
    rows = []
    for name, key in names.items():
        found = (four_compiled if "compiled" in key else speed.get("ratios", {})).get(key, {})
        cells = [_short(found[f"l{n}@5"]["median"]) if f"l{n}@5" in found else "not run" for n in (1, 2, 3)]
        rows.append([name, *cells])
    shares = speed.get("peak_fraction_scoring_by_l", {})
    rows.append(
        ["share of the machine's matrix-product peak, scoring, batch 128"]
        + [f"{100 * shares[f'l{n}']:.0f} %" if f"l{n}" in shares else "–" for n in (1, 2, 3)]
    )
    return markdown(["3BPA, batch 5, 32 channels, 3 layers, two cores", "l_max 1", "l_max 2", "l_max 3"], rows)


def barrier() -> str:
    """The demo's course."""
    rows = []
    for line in read("demo").get("iterations", []):
        errors = line["force_rmse_mev_per_angstrom"]
        cells = [errors.get(name, "") for name in ("new", "control", "profile_inversion")]
        rows.append([line["labels"], f"{line['barrier_error_mev']:+.1f}", *cells])
    head = ["labels", "barrier error (meV)", "force RMSE, new structures before training (meV/Å)"]
    return markdown([*head, "random control (meV/Å)", "along the inversion (meV/Å)"], rows)


def milliseconds() -> str:
    """Times of each program."""
    rows = []
    for line in read("speed").get("rows", []):
        if line.get("error"):
            rows.append([_row_name(line), line["program"], "failed", "", "", ""])
            continue
        train, score = line.get("train_ms", {}).get("median"), line["score_ms"]["median"]
        share = line.get("score_peak_fraction")
        rows.append(
            [
                _row_name(line),
                line["program"].replace("_", " "),
                _short(train) if train else "–",
                _short(score),
                line.get("peak_memory_mib", "–"),
                f"{100 * share:.0f} %" if share else "",
            ]
        )
    return markdown(["case", "program", "train step, ms", "score, ms", "peak memory, MiB", "of matmul peak"], rows)


def _row_name(line: Json) -> str:
    extra = "" if line["structures"] == "molecules" else f", {line['structures']}"
    extra += "" if line["dtype"] == "float32" else f", {line['dtype']}"
    return f"l_max {line['l_max']}, batch {line['batch']}{extra}"


def compiled() -> str:
    """NequIP's compiled mode."""
    content = read("speed_compiled")
    found = content.get("ratios", {})
    names = [
        "train: nequip eager / compiled",
        "train: nequip compiled / dubito",
        "train: nequip compiled / four members",
    ]
    keys = list(found.get(names[0], {}))
    first = {f"l{r['l_max']}@{r['batch']}": r for r in content.get("rows", []) if r["program"] == "nequip_compiled"}
    rows = [
        [_case(key), _short(first[key].get("first_train_s", 0)), *[_spread(found[name].get(key)) for name in names]]
        for key in keys
    ]
    return markdown(
        ["case", "first step, s", "eager / compiled", "compiled / one member", "compiled / four members"], rows
    )


def parts() -> str:
    """Where a training step goes."""
    table = read("parts").get("table", [])
    names = list(dict.fromkeys(name for line in table for name in line["parts_ms"]))
    rows = [
        [f"l_max {line['l_max']}, batch {line['batch']}, {line['members']} member{'s' * (line['members'] > 1)}"]
        + [_short(line["step_ms"])]
        + [f"{100 * line['parts_ms'].get(name, 0) / line['step_ms']:.0f} %" for name in names]
        for line in table
    ]
    return markdown(["case", "ms", *names], rows)


def operations() -> str:
    """Where the useful operations of scoring go."""
    table = read("flops").get("table", {})
    merged: dict[str, dict[str, float]] = {}
    for name, line in table.items():
        merged[name] = {}
        for part, share in line["shares"].items():
            key = part.split(": ")[1]
            merged[name][key] = merged[name].get(key, 0.0) + share
    keys = list(dict.fromkeys(key for line in merged.values() for key in line))
    rows = [
        [name, table[name]["mflop_per_molecule"], table[name]["operations_per_byte"]]
        + [f"{100 * line.get(key, 0):.0f} %" for key in keys]
        for name, line in merged.items()
    ]
    return markdown(["network", "Mflop a molecule", "operations a byte", *keys], rows)


def limits() -> str:
    """What the machine can do, measured in the run of the comparison."""
    found = read("speed").get("limits", {})
    if not found:
        return markdown(["limit"], [])
    rate, moved = found["matmul_gflops"], found["bandwidth_gb_s"]
    head = ["product of matrices, Gflop/s", "memory, GB/s", "operations a byte"]
    return markdown(head, [[_short(rate), _short(moved), _short(rate / moved)]])


def scaling() -> str:
    """Time per atom."""
    head = ["atoms", "l_max", "members", "threads", "neighbours, ms", "geometry, ms", "network, ms", "µs per atom"]
    rows = [
        [line["atoms"], line["l_max"], line["members"], line["threads"]]
        + [_short(line[key]) for key in ("neighbours_ms", "geometry_ms", "network_ms", "us_per_atom")]
        for line in read("scaling").get("rows", [])
    ]
    return markdown(head, rows)


def accuracy() -> str:
    """Force errors with coarser and finer splines."""
    content = read("accuracy")
    rows = []
    for intervals, line in content.get("by_intervals", {}).items():
        errors = line["force_rmse_mev_per_angstrom"]
        rows.append([intervals, *[" / ".join(map(str, values)) for values in errors.values()], line["cpu_s"]])
    return markdown(["intervals", "300 K", "600 K", "1200 K", "CPU s"], rows)


def training() -> str:
    """A whole training of four members."""
    line = read("accuracy").get("four_members", {})
    if not line:
        return markdown(["epochs"], [])
    force, energy = line["force_rmse_mev_per_angstrom"], line["energy_rmse_mev"]
    head = ["epochs", "CPU s, one thread", *[f"force, {t} K" for t in force], *[f"energy, {t} K" for t in energy]]
    return markdown(head, [[line["epochs"], _short(line["cpu_s"]), *force.values(), *energy.values()]])


def memory() -> str:
    """Peak memory of pools."""
    rows = []
    for name, case in read("memory").get("cases", {}).items():
        for stage in ("score_candidates", "select_batch"):
            line = case[stage]
            rows.append(
                [f"{case['frames']:,} frames of {name}", stage, _short(line["peak_rss_mb"]), line["declared_mb"]]
                + [_short(line["wall_s"]), f"{line['structures_per_s']:,.0f}"]
            )
    return markdown(["pool", "stage", "peak memory, MB", "asked for, MB", "wall, s", "structures a second"], rows)


STAGES = {
    "training": "training",
    "dft": "labels",
    "exploring": "exploring",
    "scoring_and_prediction": "scoring, predicting, fitting",
    "reporting": "report",
    "small_stages": "all others",
}


def campaign() -> str:
    """Where the wall time of whole campaigns goes."""
    found = {"demo": read("demo"), "rehearsal": read("rehearsal")}
    rows: list[list[Any]] = []
    for key, name in STAGES.items():
        row: list[Any] = [name]
        for content in found.values():
            stage = content.get("stages", {}).get(key)
            row += [stage["jobs"], _short(stage["busy_s"]), _short(stage["cpu_s"])] if stage else ["–"] * 3
        rows.append(row)
    idle: list[Any] = ["no job at all (Snakemake)"]
    whole: list[Any] = ["whole campaign"]
    for content in found.values():
        seconds, wall_s = content.get("stages", {}).get("orchestration_s", 0.0), content.get("wall_s", 1.0)
        idle += ["", f"{_short(seconds)} ({100 * seconds / wall_s:.0f} %)", ""]
        whole += ["", _short(wall_s), ""]
    columns = ["jobs", "a job ran, s", "CPU s"]
    return markdown(["", *[f"{name}: {column}" for name in found for column in columns]], [*rows, idle, whole])


def imports() -> str:
    """What starting a job costs."""
    found = read("rehearsal").get("imports", {})
    rows = [[name, _short(line["import_s"]), ", ".join(line["heavy"]) or "–"] for name, line in found.items()]
    return markdown(["stage", "import, s", "heavy packages"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "barrier": barrier,
    "ratios": ratios,
    "milliseconds": milliseconds,
    "compiled": compiled,
    "parts": parts,
    "limits": limits,
    "operations": operations,
    "scaling": scaling,
    "accuracy": accuracy,
    "training": training,
    "memory": memory,
    "campaign": campaign,
    "imports": imports,
}


def _of_methods(make: Callable[..., doubt.Table], *key: str, name: str = "uncertainty_methods") -> Callable[[], str]:
    """Return what makes a table of the uncertainty methods."""
    return lambda: markdown(*make(read(name), *key))


TABLES |= {
    "methods_ranking": _of_methods(doubt.ranking, "methods"),
    "methods_calibration": _of_methods(doubt.calibration, "methods"),
    "methods_cost": _of_methods(doubt.cost, "methods"),
    "methods_seeds": _of_methods(doubt.spread, "methods"),
    "methods_goals": _of_methods(doubt.goals),
    "methods_same_ranking": _of_methods(doubt.ranking, "same_errors"),
    "methods_variants": _of_methods(doubt.ranking, "variants"),
    "methods_variants_calibration": _of_methods(doubt.calibration, "variants"),
    "gp_settings": _of_methods(doubt.settings, name="gp_settings"),
}

TABLES |= {
    "chaos": lambda: markdown(*cluster.chaos(read("chaos"))),
    "slurm_overhead": lambda: markdown(*cluster.overhead(read("slurm_overhead"))),
    "dag": lambda: markdown(*cluster.dag(read("dag"))),
    "failing_labels": lambda: markdown(*cluster.failing(read("failing_labels"))),
}

TABLES |= {
    "ladder_counts": lambda: markdown(*labels.ladder_counts(read("scf_ladder"))),
    "ladder_rows": lambda: markdown(*labels.ladder_rows(read("scf_ladder"))),
    "insane_labels": lambda: markdown(*labels.insane(read("insane_labels"))),
}

TABLES |= {
    "planner_curves": lambda: markdown(*planner.curves(read("planner"))),
    "planner_own_target": lambda: markdown(*planner.own_target(read("planner"))),
    "planner_campaigns": lambda: markdown(*planner.campaigns(read("planner"))),
    "planner_rules": lambda: markdown(*planner.rules(read("planner"))),
    "planner_plateaus": lambda: markdown(*planner.plateaus(read("planner"))),
}

TABLES |= {
    "samplers": lambda: markdown(*sampled.samplers(read("samplers"))),
    "sampler_jobs": lambda: markdown(*sampled.jobs(read("samplers"))),
    "seeking_samplers": lambda: markdown(*seeking.samplers(read("seeking_samplers"))),
    "seeking_steps": lambda: markdown(*seeking.to_doubt(read("seeking_samplers"))),
    "seeking_targets": lambda: markdown(*seeking.targets(read("seeking_samplers"))),
}

TABLES |= {
    "certificate_miss_rates": lambda: markdown(*certified.miss_rates(read("certificate"))),
    "certificate_demo": lambda: markdown(*certified.demo(read("demo"))),
    "certificate_drift": lambda: markdown(*certified.drift(read("certificate"))),
    "certificate_stale": lambda: markdown(*certified.stale(read("certificate"))),
    "certificate_strata": lambda: markdown(*certified.strata(read("certificate"))),
    "certificate_looks": lambda: markdown(*certified.looks(read("certificate"))),
}

TABLES |= {
    "label_savings": lambda: markdown(*savings.savings(read("label_savings"))),
    "label_savings_goals": lambda: markdown(*savings.goals(read("label_savings"))),
    "label_savings_no_loss": lambda: markdown(*savings.no_loss(read("label_savings"))),
    "label_savings_coverage": lambda: markdown(*savings.coverage(read("savings_coverage"))),
    "label_savings_pools": lambda: markdown(*savings.pools(read("label_savings"))),
}

TABLES |= {
    "adaptive_members": lambda: markdown(*scoring.members(read("adaptive_scoring"))),
    "adaptive_recalls": lambda: markdown(*scoring.recalls(read("adaptive_scoring"))),
    "adaptive_stage": lambda: markdown(*scoring.stage(read("adaptive_scoring"))),
    "adaptive_features": lambda: markdown(*scoring.features(read("adaptive_scoring"))),
}

TABLES |= {
    "reasons": lambda: markdown(*selecting.reasons()),
    "label_noise": lambda: markdown(*selecting.label_noise()),
    "selection_cost": lambda: markdown(*selecting.cost(read("selection"))),
}


def fill(page: str) -> str:
    """Return the page with its tables made anew."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- table: {name} -->\n)(?:(?!<!-- table).)*?(<!-- end -->)", flags=re.DOTALL)
        table = make()
        page = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", page)
    return page


def main() -> None:
    """Print the tables, or write them into the page."""
    if "--write" in sys.argv[1:]:
        for page in PAGES:
            page.write_text(fill(page.read_text()))
        return
    for name, make in TABLES.items():
        sys.stdout.write(f"{name}\n{make()}\n\n")


if __name__ == "__main__":
    main()
