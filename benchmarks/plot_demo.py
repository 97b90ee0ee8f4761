"""Draw docs/images/inversion.png from benchmarks/results/demo.json: python benchmarks/plot_demo.py"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Draw one panel per iteration."""
    iterations = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text())["iterations"]
    figure, panels = plt.subplots(1, len(iterations), figsize=(11, 2.7), sharey=True, layout="constrained")
    for k, (panel, one) in enumerate(zip(panels, iterations, strict=True)):
        curve = one["profile"]
        x, mean, sigma = (np.array(curve[n]) for n in ("coordinate_angstrom", "predicted_mev", "uncertainty_mev"))
        panel.fill_between(x, mean - 2 * sigma, mean + 2 * sigma, color="#9ecae1", lw=0)
        panel.plot(x, mean, color="#0072b2", lw=1.6)
        panel.plot(x, curve["reference_mev"], "o", color="black", ms=3)
        panel.set_title(f"{one['labels']} labels: {one['barrier_error_mev']:+.0f} meV", fontsize=10)
        panel.set_ylim(-30, 430)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("N height over H plane [Å]", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.set_label(f"iteration {k}")
    panels[0].set_ylabel("energy [meV]", fontsize=8)
    target = ROOT / "docs" / "images" / "inversion.png"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
