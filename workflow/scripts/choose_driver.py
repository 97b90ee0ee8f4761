"""Choose the uncertainty method that drives the next iteration."""

from dubito.workflow.stage import run_stage

run_stage("choose_driver", snakemake)
