"""Training steps and scoring of dubito, NequIP and MACE, on the same batches, interleaved in one run.

    python benchmarks/speed.py              # the short form: l_max 1 and 2, batch 5, a minute or two
    python benchmarks/speed.py --full       # all rows, up to an hour
    python benchmarks/speed.py --compiled   # NequIP's compiled mode beside its eager one; compiles for long

Writes benchmarks/results/speed.json (speed_short.json, speed_compiled.json; with ``_cuda`` on a GPU) and prints it as
one line. The peers live in environments of their own, see benchmarks/peers/README.md; without them dubito is measured
alone.
Ratios are taken round by round, then their median and their 10th and 90th percentile.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _batches import Batch, molecules, silicon
from _machine import cpu_model, measure_peak
from _publish import publish
from _rounds import Effort, Program, Row, Series, measure
from _summary import headlines, table
from _worker import program_python
from flops import Size

import dubito
from dubito.data.neighbors import find_neighbors
from dubito.data.structures import Structures

RESULTS = Path(__file__).parent / "results"
# Compiling NequIP for training took more than 20 minutes in a trial.
COMPILE_TIMEOUT_S = 5400.0
# Of the cores; a quiet machine lies well below.
LOAD_TO_WARN = 0.3


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--short", dest="form", action="store_const", const="short", help="few rows (the default)")
    form.add_argument("--full", dest="form", action="store_const", const="full", help="all rows")
    form.add_argument("--compiled", dest="form", action="store_const", const="compiled", help="NequIP compiled too")
    parser.set_defaults(form="short")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=_cores(), help="of torch, the same for all (default: all cores)")
    parser.add_argument("--l-max", type=int, nargs="+", help="only these degrees")
    parser.add_argument("--batch", type=int, nargs="+", help="only these batch sizes")
    parser.add_argument("--programs", nargs="+", help="only these, e.g. dubito_1 dubito_4 nequip")
    parser.add_argument("--rounds", type=int, help="measured rounds (default: 5 short, 9 otherwise)")
    parser.add_argument("--seconds-per-row", type=float, help="no new round after this (default: 15 short, 90 full)")
    parser.add_argument("--mace-correlation", type=int, default=3, help="MACE's body order less one (default 3)")
    parser.add_argument("--plain-malloc", action="store_true", help="leave glibc's allocator as it is; see _worker.py")
    parser.add_argument("--n-features", type=int, default=32)
    parser.add_argument("--n-layers", type=int, default=3)
    parser.add_argument("--name", help="of the result file")
    return parser.parse_args(arguments)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_rows(options: argparse.Namespace) -> list[Row]:
    """Return the rows of a form, cut to what the command line asks for."""
    if options.form == "full":
        rows = [Row(l_max, batch) for batch in (5, 32, 128) for l_max in (1, 2, 3)]
        rows += [Row(2, 5, dtype="float64"), Row(1, 5, structures="silicon"), Row(2, 5, structures="silicon")]
    elif options.form == "compiled":
        rows = [Row(l_max, 5) for l_max in (1, 2, 3)]
    else:
        rows = [Row(1, 5), Row(2, 5), Row(1, 128), Row(2, 128)]
    shape = {"n_features": options.n_features, "n_layers": options.n_layers}
    rows = [Row(row.l_max, row.batch, row.structures, row.dtype, **shape) for row in rows]
    return [
        row
        for row in rows
        if (not options.l_max or row.l_max in options.l_max) and (not options.batch or row.batch in options.batch)
    ]


def choose_programs(row: Row, options: argparse.Namespace) -> list[Program]:
    """Return what is measured in a row; the short form's large batches are for dubito's distance to the limit only."""
    dubito = [Program(f"dubito_{m}", "dubito", {"members": m}) for m in (1, 4, 8)]
    nequip, mace = Program("nequip", "nequip"), Program("mace", "mace", {"correlation": options.mace_correlation})
    compiled = Program("nequip_compiled", "nequip", {"compiled": True})
    if options.form == "compiled":
        programs = [*dubito[:2], nequip, compiled]
    elif options.form == "short" and row.batch > 5:
        programs = dubito[:1]
    elif row.batch > 5:
        programs = [*dubito[:2], nequip, mace]
    else:
        programs = [*dubito, nequip, mace]
    if options.programs:
        programs = [program for program in programs if program.name in options.programs]
    return [program for program in programs if program_python(program.worker)]


def choose_effort(options: argparse.Namespace) -> Effort:
    """Return how long to measure."""
    short = options.form == "short"
    available = 0.0
    if options.device == "cpu" and Path("/proc/meminfo").exists():
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        available = 0.9 * float(lines["MemAvailable"].split()[0]) / 1024
    return Effort(
        rounds=options.rounds or (5 if short else 9),
        least_rounds=min(3, options.rounds or 3),
        seconds_per_row=options.seconds_per_row or (15.0 if short else 90.0),
        threads=options.threads,
        device=options.device,
        timeout_s=COMPILE_TIMEOUT_S if options.form == "compiled" else 1800.0,
        memory_limit_mib=available,
        keep_memory=not options.plain_malloc,
    )


def size_of(row: Row, batch: Batch) -> Size:
    """Return atoms and pairs of a row's batch."""
    rows = [i % len(batch.positions) for i in range(row.batch)]
    structures = Structures.build(
        [batch.numbers] * len(rows), [batch.positions[i] for i in rows], cell=batch.cell, pbc=batch.pbc
    )
    return Size(len(rows) * len(batch.numbers), len(find_neighbors(structures, row.r_max_angstrom).center))


def source_hash() -> str:
    """Return a hash of dubito's code as it lies on the disk: every row must have measured the same."""
    root = Path(dubito.__file__).parent
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix not in (".pyc", ".so"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def missing_peers() -> list[str]:
    """Return the peers whose environment hasn't been made."""
    return [name for name in ("nequip", "mace") if program_python(name) is None]


def recorded_compiled() -> Any:
    """Return what the last run of the compiled form found, or a line saying that there is none."""
    path = RESULTS / "speed_compiled.json"
    if not path.exists():
        return "no recorded run; python benchmarks/speed.py --compiled makes one"
    content = json.loads(path.read_text())
    kept = {key: value for key, value in content["ratios"].items() if "compiled" in key}
    rows = [line for line in content["rows"] if line["program"] == "nequip_compiled"]
    return {"date": content["date"], "threads": content["threads"], "ratios": kept, "rows": rows}


def recorded_labels() -> Any:
    """Return labels per core-hour of the last run of benchmarks/labelling.py."""
    path = RESULTS / "labelling.json"
    return json.loads(path.read_text())["labels_per_core_hour"] if path.exists() else None


def report(row: Row, all_series: list[Series], seconds: float) -> None:
    """Tell on stderr how a row went."""
    parts = []
    for series in all_series:
        times = f"{series.train[-1]:.0f}/{series.score[-1]:.0f} ms" if series.score else "failed"
        parts.append(f"{series.program.name} {times}")
    sys.stderr.write(f"{row.key}: {', '.join(parts)} (train/score; {seconds:.0f} s)\n")


def name_of(options: argparse.Namespace) -> str:
    """Return the name of the result file."""
    form = {"full": "speed", "short": "speed_short", "compiled": "speed_compiled"}[options.form]
    return options.name or form + ("_cuda" if options.device == "cuda" else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    effort, batches = choose_effort(options), {"molecules": molecules(), "silicon": silicon()}
    missing = missing_peers()
    if missing:
        sys.stderr.write(f"not measured, no environment: {', '.join(missing)}; see benchmarks/peers/README.md\n")
    load = os.getloadavg()[0]
    if load > LOAD_TO_WARN * _cores():
        sys.stderr.write(f"load average {load:.1f}: other work is running, so these times are not worth publishing\n")
    source, peaks = source_hash(), [measure_peak(options.device)]
    measured, sizes = [], {}
    for row in choose_rows(options):
        programs = choose_programs(row, options)
        if not programs:
            continue
        start = time.monotonic()
        sizes[row.key] = size_of(row, batches[row.structures])
        all_series = measure(row, programs, batches[row.structures], effort)
        measured.append((row, all_series))
        report(row, all_series, time.monotonic() - start)
        peaks.append(measure_peak(options.device))
    if source_hash() != source:
        sys.exit(
            "dubito's code changed on the disk while the benchmark ran, so that its rows measured different programs. "
            "Nothing was written; run it again, or on a copy of the repository that nobody edits."
        )
    peak = {key: max(one[key] for one in peaks) for key in peaks[0]}
    lines = table(measured, sizes, peak["matmul_gflops"])
    content = {
        **headlines(measured, lines),
        "labels_per_core_hour": recorded_labels(),
        "peers_missing": missing,
        "structures": {name: batch.name for name, batch in batches.items()},
        "network": {"n_features": options.n_features, "n_layers": options.n_layers, "r_max_angstrom": 5.0},
        "mace_correlation": options.mace_correlation,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else cpu_model(),
        "threads": options.threads,
        "memory_kept": effort.keep_memory,
        "load_average_at_start": round(load, 2),
        "source_sha256": source,
        "limits": peak,
        "nequip_compiled": None if options.form == "compiled" else recorded_compiled(),
        "rows": lines,
    }
    publish(name_of(options), content)


if __name__ == "__main__":
    main()
