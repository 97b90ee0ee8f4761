"""Measure the model of this iteration."""

from dubito.workflow.stage import run_stage

run_stage("evaluate", snakemake)
