"""Read the labelled files that serve as a fixed test set."""

from dubito.workflow.stage import run_stage

run_stage("prepare_test", snakemake)
