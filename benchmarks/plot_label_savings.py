"""Draw docs/images/label_savings.png from benchmarks/results/label_savings.json.

python benchmarks/plot_label_savings.py
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
KEY = "force_rmse_mev_per_angstrom"
TICKS = (2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 120, 150, 200, 250, 300, 400, 500, 700, 1000)
COLOURS = {
    "random": "black",
    "lcmd": "#0072b2",
    "top_uncertainty": "#d55e00",
    "clustered_top": "#009e73",
    "max_det": "#cc79a7",
    "farthest_point": "#e69f00",
}


def draw(content: dict[str, Any]) -> None:
    """Draw one panel per pool: mean curves over seeds, each seed of random and of the best, and the target."""
    pools, wanted = content["pools"], content["settings"]["n_seeds"]
    figure, panels = plt.subplots(1, len(pools), figsize=(3.0 * len(pools), 3.1), layout="constrained", squeeze=False)
    for panel, (name, pool) in zip(panels[0], pools.items(), strict=True):
        labels = pool["labels"]
        for selector, curve in pool["curves"].items():
            colour = COLOURS.get(selector, "grey")
            width = 2.2 if selector == "random" else 1.4
            # A mean over other seeds than random's can't be read against it.
            line = "-" if len(curve["seeds"]) == wanted else ":"
            panel.plot(labels, curve[KEY], f"o{line}", color=colour, lw=width, ms=3)
            if selector == "random":
                for row in curve[f"{KEY}_by_seed"]:
                    panel.plot(labels, row, color=colour, lw=0.5, alpha=0.35)
        targets = [one["target"] for key, one in content["savings"].items() if key.split(".")[0] == name]
        if targets:
            panel.axhline(float(np.mean(targets)), color="grey", lw=0.8, ls=":")
        panel.set_title(name, fontsize=9)
        _say_what_lacks(panel, {selector: len(curve["seeds"]) for selector, curve in pool["curves"].items()}, wanted)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xticks(labels, [str(n) for n in labels])
        panel.minorticks_off()
        low, high = panel.get_ylim()
        ticks = [t for t in TICKS if low <= t <= high]
        panel.set_yticks(ticks, [str(t) for t in ticks])
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("labels", fontsize=8)
    panels[0][0].set_ylabel("force RMSE of the test [meV/Å]", fontsize=8)
    drawn = {selector for pool in pools.values() for selector in pool["curves"]}
    lines = [
        plt.Line2D([], [], color=COLOURS.get(selector, "grey"), marker="o", ms=3, label=selector)
        for selector in [*(one for one in COLOURS if one in drawn), *sorted(drawn - set(COLOURS))]
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8, frameon=False)
    target = ROOT / "docs" / "images" / "label_savings.png"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=110)
    plt.close(figure)


def _say_what_lacks(panel: Any, seeds: dict[str, int], wanted: int) -> None:
    """Name the selectors that have not all seeds; one line where none has."""
    fewer = [f"{selector} {n}" for selector, n in seeds.items() if n < wanted]
    lacking = sorted(set(COLOURS) - set(seeds))
    text = [f"seeds of {wanted}: " + ", ".join(fewer)] * bool(fewer) + ["none: " + ", ".join(lacking)] * bool(lacking)
    panel.text(0.02, 0.02, "\n".join(map(_folded, text)), transform=panel.transAxes, fontsize=6, color="grey")


def _folded(text: str) -> str:
    return "\n".join(wrap(text, 44))


def main() -> None:
    """Draw what is published."""
    draw(json.loads((ROOT / "benchmarks" / "results" / "label_savings.json").read_text()))


if __name__ == "__main__":
    main()
