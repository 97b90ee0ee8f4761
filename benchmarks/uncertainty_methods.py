"""All uncertainty methods on 3BPA: ranking, calibration, decision value and cost, on the same labels.

    python benchmarks/uncertainty_methods.py            # three seeds (networks are kept and used again)
    python benchmarks/uncertainty_methods.py --short    # one small network, to see that it runs

Trains four members on 400 frames at 300 K (60 for calibration and 40 for early stopping are set apart), and judges
every method on 136, 167 and 166 frames at 300, 600 and 1200 K. ``methods``: each on the errors of the prediction it
comes with, which is that of one member but for the ensemble. ``same_errors``: all fitted to the ensemble, on the
errors of its mean, as in a campaign. ``variants``: other settings. Writes benchmarks/results/uncertainty_methods.json.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from _doubt import (
    DATA,
    Case,
    fit,
    judge,
    kept,
    load_case,
    mean_over,
    one_thread,
    plain_cpu_s,
    rounded,
    say,
    tolerance_of,
    transfer,
)
from _publish import publish

from dubito.config.model import ModelConfig
from dubito.config.uncertainty import CONTROLS, KNOWN_METHODS, UncertaintyConfig

SEEDS, EPOCHS, MEMBERS = (0, 1, 2), 80, 4
Json = dict[str, Any]
Found = dict[str, list[Json]]

# Other settings, by label: the method and what differs from its defaults.
VARIANTS: dict[str, tuple[str, Json]] = {
    "llpr, 4 directions": ("llpr", {"llpr": {"n_directions": 4}}),
    "llpr, 8 directions": ("llpr", {"llpr": {"n_directions": 8}}),
    "llpr, all directions": ("llpr", {"llpr": {"n_directions": None}}),
    "llpr, energy rows only": ("llpr", {"llpr": {"n_directions": None, "max_force_structures": 0}}),
    "shallow_ensemble, 16 heads": ("shallow_ensemble", {"shallow_ensemble": {"n_heads": 16}}),
    "gmm, per element": ("gmm", {"gmm": {"per_species": True}}),
    "distance, mahalanobis": ("distance", {"distance": {"kind": "mahalanobis"}}),
    "evidential, published form": ("evidential", {"evidential": {"mind_distance": False}}),
    "evidential, trained backbone": ("evidential", {"evidential": {"backbone": "trained"}}),
    "evidential, fitted to unseen": ("evidential", {"evidential": {"fit_on": "unseen"}}),
    "sparse_gp, linear": ("sparse_gp", {"sparse_gp": {"kernel": "linear"}}),
    "ensemble, isotonic by element": ("ensemble", {"calibration": {"kind": "isotonic", "strata": "element"}}),
    "ensemble, factor by likelihood and element": (
        "ensemble",
        {"calibration": {"estimator": "likelihood", "strata": "element"}},
    ),
    "ensemble, factor by likelihood": ("ensemble", {"calibration": {"estimator": "likelihood"}}),
    "llpr, isotonic by element": ("llpr", {"calibration": {"kind": "isotonic", "strata": "element"}}),
}


def judge_both(case: Case, method: str, settings: Json, *, both: bool) -> list[Json]:
    """Fit once; judge by its own errors, and with ``both`` by those of the members' mean too."""
    config = UncertaintyConfig.model_validate(settings)
    fitted, seconds = fit(case, case.ensemble if method == "ensemble" else case.single, method, config)
    found = [judge(case, fitted, seconds)]
    if both and method != "ensemble":
        found.append(judge(case, transfer(case, fitted, case.ensemble, config), seconds))
    return found


def run_all(cases: list[Case], tasks: dict[str, tuple[str, Json]], *, both: bool = False) -> tuple[Found, Found]:
    """Judge every task on every case, by its own errors, and with ``both`` also by those of the members' mean."""
    own: Found = {}
    same: Found = {}
    for label, (method, settings) in tasks.items():
        for case in cases:
            make = partial(judge_both, case, method, settings, both=both)
            found = kept(case, [method, settings, both], make)
            own.setdefault(label, []).append(found[0])
            same.setdefault(label, []).append(found[-1])
            rho = " ".join(f"{one['spearman']:.3f}" for one in found[0]["by_temperature"].values())
            text = f"rho {rho}, AUROC {found[0]['auroc_error']:.3f}, {found[0]['fit_cpu_s']:.1f} s"
            say(f"seed {case.seed} {label}: {text}")
    return own, same


def row(found: list[Json], plain_s: list[float]) -> Json:
    """Return what the tables show of one method: means over seeds, and each seed's main numbers."""
    mean = mean_over(found)
    of = {t: mean["by_temperature"][t] for t in mean["by_temperature"]}
    return {
        "auroc_error": mean["auroc_error"],
        "spearman_within": {t: one["spearman"] for t, one in of.items()},
        "spearman_within_elements": {t: one["spearman_elements"] for t, one in of.items()},
        "auroc_within": {t: one["auroc"] for t, one in of.items()},
        "ause": mean["ause"],
        "gain_share_10": mean["gain_share_10"],
        "miscalibration_area": {t: one["area"] for t, one in of.items()},
        "miscalibration_area_before": {t: one["area_before"] for t, one in of.items()},
        "nll": {t: one["nll"] for t, one in of.items()},
        "coverage_95": {t: one["coverage_95"] for t, one in of.items()},
        "conformal_95_component": {t: one["conformal_95_component"] for t, one in of.items()},
        "conformal_95_atom": {t: one["conformal_95_atom"] for t, one in of.items()},
        "sharpness_mev": {t: one["sharpness_mev"] for t, one in of.items()},
        "ence_300": {"value": of["300"]["ence"], "null": of["300"]["ence_null"]},
        "shift_auroc": mean["shift"],
        "growth_1200_over_300": mean["growth"],
        "growth_energies": mean["growth_energies"],
        "cost_model_evaluations": mean["evaluations"],
        "cost_time": sum(one["predict_cpu_s"] / s for one, s in zip(found, plain_s, strict=True)) / len(found),
        "fit_cpu_s": mean["fit_cpu_s"],
        "seeds": [
            {"auroc_error": one["auroc_error"],
             "spearman_within": {t: s["spearman"] for t, s in one["by_temperature"].items()}}
            for one in found
        ],
    }  # fmt: skip


def goals(methods: dict[str, Json]) -> Json:
    """Return the goals of the study, each with what was found and whether it is met."""
    ensemble, constant = methods["ensemble"], methods["constant"]
    single = {name: one for name, one in methods.items() if name != "ensemble" and name not in CONTROLS}
    best = max(single, key=lambda name: single[name]["auroc_error"])
    ratios = {t: methods[best]["spearman_within"][t] / value for t, value in ensemble["spearman_within"].items()}
    calibrated = {
        name: one["miscalibration_area"]["300"]
        for name, one in methods.items()
        if one["miscalibration_area"]["300"] <= 0.03 and one["nll"]["300"] < constant["nll"]["300"]
    }
    covering = {n: one["coverage_95"]["1200"] for n, one in methods.items() if one["coverage_95"]["1200"] >= 0.9}
    svgp, distance = methods["svgp"], methods["distance"]
    return {
        "best single-model method": {
            "method": best,
            "auroc_minus_ensemble": methods[best]["auroc_error"] - ensemble["auroc_error"],
            "spearman_over_ensemble": ratios,
            "met": methods[best]["auroc_error"] >= ensemble["auroc_error"] - 0.02 and min(ratios.values()) >= 0.95,
        },
        "svgp beats distance, grows by more than 1.6": {
            "auroc": [svgp["auroc_error"], distance["auroc_error"]],
            "growth": svgp["growth_1200_over_300"],
            "met": svgp["auroc_error"] > distance["auroc_error"]
            and all(svgp["spearman_within"][t] > rho for t, rho in distance["spearman_within"].items())
            and svgp["growth_1200_over_300"] > 1.6,
        },
        "calibrated at 300 K: area at most 0.03, NLL below constant": {"methods": calibrated, "met": bool(calibrated)},
        "95 % interval covers 90 % at 1200 K": {"methods": covering, "met": bool(covering)},
        "the same, conformal ball of an atom's error": {
            "methods": {
                n: one["conformal_95_atom"]["1200"]
                for n, one in methods.items()
                if one["conformal_95_atom"]["1200"] >= 0.9
            },
            "met": any(one["conformal_95_atom"]["1200"] >= 0.9 for one in methods.values()),
        },
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--short", action="store_true", help="one small network, few epochs, no variants")
    short = parser.parse_args().short
    if not DATA.is_dir():
        sys.stdout.write(f"uncertainty_methods: skipped, the 3BPA frames are not there ({DATA.name})\n")
        return
    one_thread()
    model = ModelConfig(l_max=1 if short else 2, r_max_angstrom=5.0)
    settings: Json = {"epochs": 4, "members": 2, "n_train": 60} if short else {"epochs": EPOCHS, "members": MEMBERS}
    cases = [load_case(seed, model=model, **settings) for seed in ((0,) if short else SEEDS)]
    plain_s = [plain_cpu_s(case) for case in cases]
    tasks: dict[str, tuple[str, Json]] = {name: (name, {}) for name in KNOWN_METHODS}
    if short:
        tasks["svgp"] = ("svgp", {"svgp": {"steps": 20, "n_inducing": 20}})
        tasks["evidential"] = ("evidential", {"evidential": {"epochs": 5}})
    own, same = run_all(cases, tasks, both=not short)
    methods = {name: row(found, plain_s) for name, found in own.items()}
    content: Json = {
        "frames": {"train": len(cases[0].train), "calibration": len(cases[0].calibration),
                   "test": {str(t): len(s) for t, s in cases[0].tests.items()}},
        "model": {"l_max": model.l_max, "n_features": model.n_features, "n_latent": model.n_latent},
        "settings": settings,
        "seeds": [case.seed for case in cases],
        "train_cpu_s": [case.train_cpu_s for case in cases],
        "tolerance_ev_per_angstrom": [tolerance_of(case) for case in cases],
        "controls": list(CONTROLS),
        "methods": methods,
        "goals": goals(methods),
    }  # fmt: skip
    if not short:
        content["same_errors"] = {name: row(found, plain_s) for name, found in same.items()}
        variants, _ = run_all(cases, VARIANTS)
        content["variants"] = {name: row(found, plain_s) for name, found in variants.items()}
    publish("uncertainty_methods_short" if short else "uncertainty_methods", rounded(content))


if __name__ == "__main__":
    main()
