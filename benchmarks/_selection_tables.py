"""Tables of docs/selection.md: the reason codes, and what selecting costs."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Table = tuple[list[str], list[list[Any]]]


def reasons() -> Table:
    """Return every code of rejected.csv, from the code itself."""
    from dubito.selection.reasons import REASONS

    rows = [
        [f"`{code}`", reason.meaning, reason.value, "–" if reason.key == "–" else f"`{reason.key}`"]
        for code, reason in REASONS.items()
    ]
    return ["code", "the candidate", "number beside it", "decided by"], rows


def label_noise() -> Table:
    """Return the force noise of integration grids and SCF convergence, from the code itself."""
    from dubito.config.label_noise import CONVERGENCE_NOISE, GRID_NOISE

    rows = [[f"`grid_level: {level}`", f"{1e3 * noise:.2g}"] for level, noise in GRID_NOISE.items()]
    rows += [[f"`conv_tol_hartree: {loose:g}`", f"{1e3 * noise:.2g}"] for loose, noise in CONVERGENCE_NOISE.items()]
    return ["setting", "rms error of a force component (meV/Å)"], rows


def cost(result: Json) -> Table:
    """Return what each selector costs on a large pool."""
    rows = [
        [
            f"`{case['selector']}`" + (", by sampler" if case.get("stratify_by_sampler") else ""),
            case.get("features", "fingerprints"),
            f"{case['cpu_s']:.0f}",
            f"{case['peak_rss_mb']:.0f}",
            f"{case['duplicates_selected']} of {case['selected']}",
        ]
        for case in result.get("cases", [])
    ]
    return ["selector", "features", "CPU time (s)", "peak memory (MB)", "duplicates selected"], rows
