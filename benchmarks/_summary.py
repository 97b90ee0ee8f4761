"""From measured series to the table of the speed benchmark and its headline numbers."""

from __future__ import annotations

from typing import Any

from _ratios import ratios, spread
from _rounds import Row, Series
from flops import Size, count, total

from dubito.config.model import ModelConfig

Measured = list[tuple[Row, list[Series]]]
# The batch size headline ratios are taken at: that of the default configuration.
HEADLINE_BATCH = 5
SCORING_BATCH = 128


def table(measured: Measured, sizes: dict[str, Size], peak_gflops: float) -> list[dict[str, Any]]:
    """Return one line per row and program; ``sizes`` by row key."""
    lines = []
    for row, all_series in measured:
        for series in all_series:
            line: dict[str, Any] = {
                "program": series.program.name,
                "l_max": row.l_max,
                "batch": row.batch,
                "structures": row.structures,
                "dtype": row.dtype,
                "members": series.program.members,
            }
            if series.error:
                line["error"] = series.error
            if series.train:
                line["n_parameters_per_member"] = series.setup["n_parameters"]
                line["train_ms"] = spread(series.train)
                line["first_train_s"] = series.first_train_s
            if series.score:
                line["score_ms"] = spread(series.score)
                line["first_score_s"] = series.first_score_s
                line["structures_per_s"] = round(1e3 * row.batch / line["score_ms"]["median"], 1)
                if series.program.worker == "dubito":
                    line |= rate(row, series, sizes[row.key], peak_gflops)
                    line["score_parts_ms"] = {name: float(f"{ms:.3g}") for name, ms in series.parts.items()}
            if series.peak_memory_mib:
                line["peak_memory_mib"] = round(series.peak_memory_mib)
                line["memory_after_import_mib"] = round(series.setup["memory_after_import_mib"])
            lines.append(line)
    return lines


def rate(row: Row, series: Series, size: Size, peak_gflops: float) -> dict[str, float]:
    """Return the useful operations per second of scoring, and their share of the measured peak."""
    config = ModelConfig(
        l_max=row.l_max, n_layers=row.n_layers, n_features=row.n_features, r_max_angstrom=row.r_max_angstrom
    )
    operations = total(count(config, size, series.program.members))
    gflops = 1e-6 * operations / spread(series.score)["median"]
    # The peak is that of float32.
    share = {"score_peak_fraction": round(gflops / peak_gflops, 4)} if row.dtype == "float32" else {}
    return {"score_gflops": round(gflops, 2), **share}


def compare(measured: Measured, one: str, other: str, what: str, factor: float = 1.0) -> dict[str, dict[str, float]]:
    """Return ``factor * time of one / time of other`` by row, median and spread over rounds."""
    out = {}
    for row, all_series in measured:
        by_name = {series.program.name: getattr(series, what) for series in all_series}
        values = ratios(by_name.get(one, []), by_name.get(other, []), factor)
        if values:
            out[row.key] = spread(values)
    return out


def by_degree(compared: dict[str, dict[str, float]], batch: int = HEADLINE_BATCH) -> dict[str, float]:
    """Return the medians of the plain float32 rows of one batch size: ``{"l1": ..., "l2": ...}``."""
    return {key.split("@")[0]: value["median"] for key, value in compared.items() if key.endswith(f"@{batch}")}


def least(values: dict[str, float]) -> float | None:
    """Return the smallest value, None when there is none."""
    return min(values.values()) if values else None


def headlines(measured: Measured, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers documentation and tests quote; ratios above one are in dubito's favour."""
    train_nequip = compare(measured, "nequip", "dubito_1", "train")
    train_mace = compare(measured, "mace", "dubito_1", "train")
    four = compare(measured, "nequip", "dubito_4", "train")
    scoring = compare(measured, "nequip", "dubito_4", "score", factor=4.0)
    vectorised = {n: compare(measured, f"dubito_{n}", "dubito_1", "train") for n in (4, 8)}
    cost = {
        f"{n}@{batch}": vectorised[n][f"l1@{batch}"]["median"]
        for n, batch in ((4, 5), (4, 32), (8, 5))
        if f"l1@{batch}" in vectorised[n]
    }
    peak = {
        f"l{line['l_max']}": line["score_peak_fraction"]
        for line in lines
        if line["program"] == "dubito_1"
        and line["batch"] == SCORING_BATCH
        and line["structures"] == "molecules"
        and "score_peak_fraction" in line
    }
    return {
        "train_step_vs_nequip": by_degree(train_nequip),
        "train_step_vs_mace": by_degree(train_mace),
        "four_members_vs_one_nequip": least(by_degree(four)),
        "four_members_vs_one_nequip_by_l": by_degree(four),
        "vectorised_cost": cost,
        "scoring_vs_four_nequip": least(by_degree(scoring)),
        "scoring_vs_four_nequip_by_l": by_degree(scoring),
        "peak_fraction_scoring": least(peak),
        "peak_fraction_scoring_by_l": peak,
        "ratios": {
            "train: nequip / dubito": train_nequip,
            "train: MACE / dubito": train_mace,
            "train: nequip / four members": four,
            "score: four nequip / four members": scoring,
            "score: four MACE / four members": compare(measured, "mace", "dubito_4", "score", factor=4.0),
            "score: nequip / dubito": compare(measured, "nequip", "dubito_1", "score"),
            "score: MACE / dubito": compare(measured, "mace", "dubito_1", "score"),
            "train: four members / one": vectorised[4],
            "train: eight members / one": vectorised[8],
            "train: four in turn / four vectorised": compare(measured, "dubito_1", "dubito_4", "train", factor=4.0),
            "train: nequip eager / compiled": compare(measured, "nequip", "nequip_compiled", "train"),
            "train: nequip compiled / dubito": compare(measured, "nequip_compiled", "dubito_1", "train"),
            "train: nequip compiled / four members": compare(measured, "nequip_compiled", "dubito_4", "train"),
            "score: four nequip compiled / four members": compare(
                measured, "nequip_compiled", "dubito_4", "score", factor=4.0
            ),
            "score: nequip compiled / dubito": compare(measured, "nequip_compiled", "dubito_1", "score"),
        },
    }
