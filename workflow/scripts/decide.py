"""Decide whether the campaign goes on, and say why."""

from dubito.workflow.stage import run_stage

run_stage("decide", snakemake)
