"""Fit one uncertainty method to the ensemble."""

from dubito.workflow.stage import run_stage

run_stage("fit_uncertainty", snakemake)
