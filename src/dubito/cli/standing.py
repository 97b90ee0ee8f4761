"""Where a campaign stands, read from its result files alone."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dubito.core.errors import DataError
from dubito.core.files import read_json
from dubito.core.locks import is_alive, process_start
from dubito.core.progress import read


def standing(name: str) -> list[str]:
    """Return the lines of ``dubito status``; the last one says what to do next.

    Raises
    ------
    DataError
        When the campaign was never started here.
    """
    folder = Path("results", name)
    if not folder.is_dir():
        raise DataError(
            f"{folder} does not exist: the campaign '{name}' was not started here. Run `snakemake --cores 2`."
        )
    events = _latest(read(folder / "progress.jsonl"))
    summary = _summary(folder)
    running = [e for e in events if e["event"] == "started" and _may_run(e)]
    killed = [e for e in events if e["event"] == "started" and not _may_run(e)]
    failed = [e for e in events if e["event"] == "failed"]
    state = summary.get("state", "running")
    if state == "running" and not running:
        state = "not running"
    lines = [f"{name}: {state}. {summary.get('reason', '')}".rstrip(), *_table(folder), *_driver(folder)]
    lines += [f"now: {_title(e)} for {time.time() - e['time']:.0f} s" for e in running]
    lines += [f"killed: {_title(e)} after {_clock(e)}" for e in killed]
    lines += [f"failed: {_title(e)} at {_clock(e)}: {_short(e.get('error', ''))} Log: {e.get('log')}" for e in failed]
    return [*lines, _next(folder, summary, bool(running), bool(failed))]


def _latest(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the last event of each job."""
    last = {(e.get("stage"), e.get("iteration"), e.get("part")): e for e in events if "event" in e}
    return list(last.values())


def _summary(folder: Path) -> Mapping[str, Any]:
    try:
        summary: dict[str, Any] = read_json(folder / "summary.json")
    except DataError:
        return {}
    return summary


def _may_run(event: Mapping[str, Any]) -> bool:
    """Say whether a started job may still run (only this machine's processes can be asked)."""
    if event.get("host") != socket.gethostname():
        return True
    return is_alive(event) if "process_start" in event else process_start(int(event["pid"])) is not None


def _table(folder: Path) -> list[str]:
    """Return one line per evaluated iteration."""
    rows = []
    for path in sorted(folder.glob("iter_*/metrics.json")):
        try:
            rows.append(_row(read_json(path)))
        except (DataError, KeyError):
            continue
    if not rows:
        return ["no iteration is evaluated yet"]
    head = f"{'iteration':>9} {'labels':>7} {'failed':>7} {'force RMSE':>16}  {'miss rate':>17}  barrier error"
    return [head, *rows]


def _driver(folder: Path) -> list[str]:
    """Say which uncertainty method drives; nothing before the first decision."""
    for path in sorted(folder.glob("iter_*/decision.json"), reverse=True):
        try:
            chosen = read_json(path).get("acquire_with") or {}
        except DataError:
            continue
        if "method" in chosen:
            return [f"driver: {chosen['method']}. {chosen.get('reason', '')}".rstrip()]
    return []


def _row(metrics: Mapping[str, Any]) -> str:
    errors = metrics["errors"]
    measured = next((s for s in ("test", "valid", "train") if errors.get(s)), None)
    force = "-" if measured is None else f"{1e3 * errors[measured]['force_rmse_ev_per_angstrom']:.0f} meV/Å {measured}"
    miss = metrics.get("miss_rate", {})
    value, high = miss.get("value"), miss.get("high")
    bound = "not measured" if value is None or high is None else f"{value:.0%} (<= {high:.0%})"
    barriers = [
        f"{name} {1e3 * values['barrier_error_ev']:+.0f} meV" for name, values in metrics.get("physics", {}).items()
    ]
    labels = metrics["labels"]
    return (
        f"{metrics['iteration']:>9} {labels['total']:>7} {labels['failed']:>7} {force:>16}  {bound:>17}  "
        f"{', '.join(barriers) or '-'}"
    )


def _title(event: Mapping[str, Any]) -> str:
    iteration = event.get("iteration")
    where = "" if iteration is None else f", iteration {iteration}"
    return f"{event.get('stage')} {event.get('part', '')}".strip() + where


def _clock(event: Mapping[str, Any]) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))


def _short(text: str, width: int = 200) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _next(folder: Path, summary: Mapping[str, Any], is_running: bool, has_failed: bool) -> str:
    report = folder / "report" / "index.html"
    if is_running:
        return f"Next: wait; the report so far is {report}" if report.exists() else "Next: wait."
    if has_failed:
        return "Next: read the log, mend the cause, start the same snakemake command again; finished work is kept."
    if summary.get("state", "running") == "running":
        return "Next: start the same snakemake command again; finished work is kept."
    return f"Next: open {report} in a browser."
