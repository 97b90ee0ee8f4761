"""Explore with the model of the iteration before and collect candidates."""

from dubito.workflow.stage import run_stage

run_stage("explore_structures", snakemake)
