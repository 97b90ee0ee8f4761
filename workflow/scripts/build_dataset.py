"""Add the new labels to the dataset and split them."""

from dubito.workflow.stage import run_stage

run_stage("build_dataset", snakemake)
