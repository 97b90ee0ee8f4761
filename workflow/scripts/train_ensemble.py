"""Train the members of one group."""

from dubito.workflow.stage import run_stage

run_stage("train_ensemble", snakemake)
