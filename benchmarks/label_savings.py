"""What the study of label savings has found so far: its JSON and figure, from the campaigns that are finished.

    snakemake --cores 1 study_label_savings     # computes what is missing, then this
    python benchmarks/label_savings.py          # publishes what is finished
    python benchmarks/label_savings.py --run    # computes what is missing in one process, the most telling first
    python benchmarks/label_savings.py --stamp  # first gives cells of an older dubito the hash of today's data

Campaigns are replayed on labelled pools, each selector against random from the same initial sets; see
docs/label_savings.md, and config/studies/label_savings.yaml for the settings. Writes
benchmarks/results/label_savings.json and docs/images/label_savings.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _publish import publish

from dubito.core.errors import DubitoError
from dubito.studies.label_savings.cells import (
    NO_HASH,
    ammonia_file,
    data_hashes,
    is_finished,
    possible_cells,
    run_cells,
)
from dubito.studies.label_savings.settings import StudySettings, load_settings
from dubito.studies.label_savings.summary import summarise
from dubito.workflow.study import FOLDER, SETTINGS

STAMP = "; --stamp gives it to them, if the data have not changed since"


def run(settings: StudySettings, folder: Path, data: Path) -> None:
    """Compute the campaigns that are missing, and say how far it is."""
    import torch

    torch.set_num_threads(1)
    cells = possible_cells(settings, data)
    hashes = data_hashes(settings, folder, data)
    done = sum(is_finished(cell, folder, settings, hashes.get(cell.pool)) for cell in cells)
    for made, (cell, found) in enumerate(run_cells(cells, folder, settings, data), 1):
        errors = [round(point["force_rmse_mev_per_angstrom"]) for point in found["curve"]]
        sys.stderr.write(
            f"{time.strftime('%H:%M:%S')} {done + made}/{len(cells)} {cell.pool} {cell.selector} {cell.seed}: "
            f"{found['cpu_s']:.0f} CPU s, force RMSE {errors} meV/Å\n"
        )


def label_ammonia(settings: StudySettings, folder: Path, cache: Path) -> None:
    """Make the rare pool, unless it is there."""
    from dubito.studies.label_savings.ammonia import make_ammonia

    if not ammonia_file(folder).exists():
        make_ammonia(ammonia_file(folder), settings.ammonia, settings.seed, cache)


def by_pool(savings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the savings in forces as readers of result files look for them: by pool and selector."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, saving in savings.items():
        pool, selector = name.rsplit(".", 1)
        kept = {key: saving[key] for key in ("ratio", "low", "high", "t_low", "t_high")}
        found.setdefault(pool, {})[selector] = kept | {"seeds": saving["n_seeds"]}
    return found


def main() -> None:
    """Compute if asked, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", action="store_true", help="compute what is missing first (hours)")
    parser.add_argument(
        "--stamp",
        action="store_true",
        help="first write the hash of today's data into campaigns that have none, after checking their initial ids",
    )
    parser.add_argument("--settings", type=Path, default=Path(SETTINGS))
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), help="where the campaigns lie")
    parser.add_argument("--data", type=Path, default=None, help="where the labelled files are")
    arguments = parser.parse_args()
    try:
        settings = load_settings(arguments.settings)
        data = arguments.data or Path(settings.data_folder)
        if arguments.stamp:
            from dubito.studies.label_savings.stamp import stamp_cells

            sys.stderr.write(f"{stamp_cells(arguments.folder, settings, data)} campaigns stamped\n")
        if arguments.run:
            label_ammonia(settings, arguments.folder, Path("results/label_cache"))
            run(settings, arguments.folder, data)
        content = summarise(arguments.folder, settings, data)
    except DubitoError as error:
        sys.stderr.write(f"dubito: {error}\n")
        sys.exit(error.exit_code)
    for reason, n in content["not_counted"].items():
        sys.stderr.write(f"label_savings: {n} campaigns do not count: {reason}{STAMP if reason == NO_HASH else ''}\n")
    publish("label_savings", content | by_pool(content["savings"]))
    try:
        from plot_label_savings import draw
    except ImportError as error:  # the figure alone needs matplotlib
        sys.stderr.write(f"label_savings: no figure, {error}; install matplotlib and run this again\n")
    else:
        draw(content)


if __name__ == "__main__":
    main()
