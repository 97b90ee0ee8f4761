"""Versions of the stages.

Snakemake does not see edits in imported modules. Each rule therefore carries the version of its stage
among its params: raise a number when, and only when, the stage would write other results, and every
campaign reruns that stage and what follows. A docstring that moves never recomputes a label.

The numbers also stand in the campaign's ``state/schema.json``, beside the version of the folder's layout: an older
dubito, which would make everything again the older way, refuses the folder (:mod:`dubito.workflow.schema`). Raise
``SCHEMA_VERSION`` there when, and only when, files move or the workflow needs one that older campaigns lack; give an
upgrade for it that computes nothing.
"""

from __future__ import annotations

from typing import Final

from dubito.core.errors import EnvironmentFault, unknown_name

STAGE_VERSIONS: Final = {
    "prepare_structures": 1,
    "prepare_reference": 2,
    "prepare_test": 1,
    "explore_structures": 1,
    "score_candidates": 1,
    "select_batch": 1,
    "label_structures": 2,
    "build_dataset": 1,
    "train_ensemble": 2,
    "merge_ensemble": 1,
    "fit_uncertainty": 2,
    "predict_structures": 2,
    "predict_batch": 1,
    "evaluate": 3,
    "choose_driver": 1,
    "decide": 3,
    "write_report": 2,
}


def stage_version(name: str) -> int:
    """Return the version of a stage.

    Raises
    ------
    EnvironmentFault
        When there is no such stage: the rules and the installed package don't belong together.
    """
    if name not in STAGE_VERSIONS:
        raise EnvironmentFault(
            f"{unknown_name('stage', name, STAGE_VERSIONS)} The rules in workflow/ and the installed dubito "
            "are of different versions; install the dubito of this folder."
        )
    return STAGE_VERSIONS[name]
