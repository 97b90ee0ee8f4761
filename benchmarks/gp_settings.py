"""Why the Gaussian process of the source report saw nothing: its settings, changed one at a time.

    python benchmarks/gp_settings.py            # three seeds; uses the networks of uncertainty_methods.py
    python benchmarks/gp_settings.py --short    # two settings, few steps, one small network

The source's settings are imitated (its code is not published): latents as they come, inducing points drawn from all
atoms, the library's default lengthscale, only the mean energy removed, no forces, stochastic gradients alone. Each row
changes one of them, the last all. Writes benchmarks/results/gp_settings.json.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from _doubt import DATA, Case, fit, judge, kept, load_case, mean_over, one_thread, rounded, say
from _publish import publish
from uncertainty_methods import EPOCHS, MEMBERS, SEEDS

from dubito.config.methods import SvgpConfig
from dubito.config.model import ModelConfig
from dubito.config.uncertainty import UncertaintyConfig

Json = dict[str, Any]
SOURCE: Json = {
    "n_inducing": 300, "inducing": "random", "lengthscale": "default", "standardise": False, "scale_target": False,
    "initialise_scales": False, "force_weight": 0.0, "solve": False, "steps": 400, "batch_size": 32,
}  # fmt: skip
CHANGES: dict[str, Json] = {
    "as in the source": {},
    "+ latents standardised": {"standardise": True},
    "+ lengthscale from the data": {"lengthscale": "data"},
    "+ both": {"standardise": True, "lengthscale": "data"},
    "+ inducing points spread": {"inducing": "spread"},
    "+ target scaled, scales initialised": {"scale_target": True, "initialise_scales": True},
    "+ forces": {"force_weight": 0.5},
    "+ posterior solved": {"solve": True},
}


def _judge(case: Case, config: UncertaintyConfig) -> Json:
    return judge(case, *fit(case, case.single, "svgp", config))


def measure(cases: list[Case], settings: Json) -> Json:
    """Return one row: means over seeds, and each seed's growth."""
    config = UncertaintyConfig(svgp=SvgpConfig.model_validate(settings))
    found = [kept(case, ["svgp", settings], partial(_judge, case, config)) for case in cases]
    mean = mean_over(found)
    return {
        "growth_1200_over_300": mean["growth"],
        "growth_energies": mean["growth_energies"],
        "growth_energies_by_seed": [one["growth_energies"] for one in found],
        "growth_by_seed": [one["growth"] for one in found],
        "spearman_within": {t: one["spearman"] for t, one in mean["by_temperature"].items()},
        "spearman_energies": {t: one["spearman_energies"] for t, one in mean["by_temperature"].items()},
        "auroc_error": mean["auroc_error"],
        "shift_energies": mean["shift_energies"],
        "fit_cpu_s": mean["fit_cpu_s"],
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--short", action="store_true", help="two rows of a small network")
    short = parser.parse_args().short
    if not DATA.is_dir():
        sys.stdout.write(f"gp_settings: skipped, the 3BPA frames are not there ({DATA.name})\n")
        return
    one_thread()
    model = ModelConfig(l_max=1 if short else 2, r_max_angstrom=5.0)
    trained: Json = {"epochs": 4, "members": 2, "n_train": 60} if short else {"epochs": EPOCHS, "members": MEMBERS}
    cases = [load_case(seed, model=model, **trained) for seed in ((0,) if short else SEEDS)]
    less: Json = {"steps": 10, "n_inducing": 30} if short else {}
    rows = {}
    for name, change in list(CHANGES.items())[: 1 if short else None]:
        rows[name] = measure(cases, SOURCE | change | less)
        say(f"{name}: {rounded(rows[name])}")
    rows["all mended (the default)"] = measure(cases, less)
    content = {"seeds": [case.seed for case in cases], "source": SOURCE, "rows": rows}
    publish("gp_settings_short" if short else "gp_settings", rounded(content))


if __name__ == "__main__":
    main()
